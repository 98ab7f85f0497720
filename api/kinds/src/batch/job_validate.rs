//! What makes a job valid, also inside a cron job.

use meta::{FieldError, Path, names};
use serde_json::Value;

use super::job::UID_LABEL;
use crate::apps::workload::matches_template;
use crate::check::{Errors, among, follows, immutable, label_selector, not_negative, without_value};
use crate::print::condition_true;
use crate::value::{at, flag, int, items, map, remove, same, set, text};

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_INDEXED_PARALLELISM: i64 = 100_000;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// The whole of a job.
pub(crate) fn check(job: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    generated_selector(&mut errors, job);
    check_whole_spec(&mut errors, at(job, "spec").unwrap_or(&Value::Null));
    completions_fit_name(&mut errors, job);
    errors
}

fn check_whole_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::root("spec");
    check_spec(errors, path, spec);
    match at(spec, "selector") {
        None => errors.push(FieldError::required(path.child("selector"), "")),
        selector => label_selector(errors, path.child("selector"), selector),
    }
    matches_template(errors, path.child("template"), spec);
}

/// Labels that the server generates are there and its own.
fn generated_selector(errors: &mut Errors, job: &Value) {
    if flag(job, "spec.manualSelector") || at(job, "spec.selector").is_none() {
        return;
    }
    let spec = Path::root("spec");
    let template = spec.child("template");
    let metadata = template.child("metadata");
    let path = metadata.child("labels");
    let labels = map(job, "spec.template.metadata.labels");
    let (name, uid) = (text(job, "metadata.name"), text(job, "metadata.uid"));
    let expected =
        [("controller-uid", uid), ("job-name", name), (UID_LABEL, uid), ("batch.kubernetes.io/job-name", name)];
    for (key, value) in expected {
        let message = format!("must be '{value}'");
        let actual = labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        if actual.is_none() {
            errors.push(FieldError::required(path.key(key), message.as_str()));
        }
        if actual.unwrap_or("") != value {
            let all = labels.cloned().map_or(Value::Null, Value::Object);
            errors.push(FieldError::invalid(path.key(key), all, message));
        }
    }
    let labels = Value::Object(expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect());
    let selector = at(job, "spec.selector");
    if meta::Selector::from_object(selector).is_ok() && !crate::check::selects(selector, Some(&labels)) {
        let value = selector.cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(spec.child("selector"), value, "`selector` not auto-generated"));
    }
}

/// The host name of an indexed pod is the job's name and the index.
fn completions_fit_name(errors: &mut Errors, job: &Value) {
    let completions = int(job, "spec.completions").unwrap_or(0);
    if text(job, "spec.completionMode") == "Indexed" && completions > 0 {
        let host = format!("{}-{}", text(job, "metadata.name"), completions - 1);
        if !names::dns1123_label(&host).is_empty() {
            let message = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(FieldError::invalid("metadata.name", text(job, "metadata.name"), message));
        }
    }
}

/// The spec of a job, but for its selector.
pub(crate) fn check_spec(errors: &mut Errors, path: Path, spec: &Value) {
    let counts = ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit"];
    for key in counts.iter().chain(&["ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes"]) {
        not_negative(errors, &path, spec, key);
    }
    if int(spec, "maxFailedIndexes").is_some() && int(spec, "backoffLimitPerIndex").is_none() {
        let message = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(path.child("backoffLimitPerIndex"), message));
    }
    if let Some(Value::String(manager)) = at(spec, "managedBy") {
        crate::check::domain_prefixed_path(errors, path.child("managedBy"), manager);
    }
    completion_mode(errors, path, spec);
    failure_policy(errors, path.child("podFailurePolicy"), spec);
    replacement_policy(errors, path.child("podReplacementPolicy"), spec);
    crate::core::pod_spec::template(errors, path.child("template"), at(spec, "template"));
    restart_policy(errors, path, spec);
}

fn completion_mode(errors: &mut Errors, path: Path, spec: &Value) {
    let mode = text(spec, "completionMode");
    if !mode.is_empty() {
        among(errors, path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    let success = path.child("successPolicy");
    if mode != "Indexed" {
        if mode.is_empty() || mode == "NonIndexed" {
            for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = int(spec, key) {
                    errors.push(FieldError::invalid(path.child(key), value, "requires indexed completion mode"));
                }
            }
        }
        if let Some(policy) = at(spec, "successPolicy") {
            errors.push(FieldError::invalid(success, policy.clone(), "requires indexed completion mode"));
        }
        return;
    }
    if int(spec, "completions").is_none() {
        errors.push(FieldError::required(path.child("completions"), "when completion mode is Indexed"));
    }
    if let Some(n) = int(spec, "parallelism").filter(|n| *n > MAX_INDEXED_PARALLELISM) {
        let message =
            format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
        errors.push(FieldError::invalid(path.child("parallelism"), n, message));
    }
    let all = int(spec, "completions").unwrap_or(i64::MAX);
    if let Some(most) = int(spec, "maxFailedIndexes").filter(|most| *most > all) {
        let message = "must be less than or equal to completions";
        errors.push(FieldError::invalid(path.child("maxFailedIndexes"), most, message));
    }
    if let Some(policy) = at(spec, "successPolicy") {
        success_policy(errors, success, policy, int(spec, "completions").unwrap_or(0));
    }
}

fn success_policy(errors: &mut Errors, path: Path, policy: &Value, completions: i64) {
    let rules = items(policy, "rules");
    let path = path.child("rules");
    if rules.is_empty() {
        let message = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(path, message));
    }
    if rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(path, rules.len() as i64, MAX_RULES as i64));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let count = int(rule, "succeededCount");
        if count.is_none() && at(rule, "succeededIndexes").is_none() {
            let message = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(path, message));
        }
        not_negative(errors, &path, rule, "succeededCount");
        if let Some(count) = count.filter(|count| *count > completions) {
            let message = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(FieldError::invalid(path.child("succeededCount"), count, message));
        }
    }
}

fn replacement_policy(errors: &mut Errors, path: Path, spec: &Value) {
    let Some(Value::String(policy)) = at(spec, "podReplacementPolicy") else { return };
    let only_failed = at(spec, "podFailurePolicy").is_some();
    let allowed: &[&str] = if only_failed { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    among(errors, path, policy, allowed);
}

fn restart_policy(errors: &mut Errors, path: Path, spec: &Value) {
    let template = path.child("template");
    let pod = template.child("spec");
    let path = pod.child("restartPolicy");
    match text(spec, "template.spec.restartPolicy") {
        "" | "Always" => errors.push(FieldError::required(path, "valid values: \"OnFailure\", \"Never\"")),
        policy @ ("OnFailure" | "Never") => {
            if policy != "Never" && at(spec, "podFailurePolicy").is_some() {
                let message = "only \"Never\" is supported when podFailurePolicy is specified";
                errors.push(FieldError::invalid(path, policy, message));
            }
        }
        other => among(errors, path, other, &["OnFailure", "Never"]),
    }
}

/// Upstream lists allowed values as a Go slice where one is missing.
fn listed(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| meta::text::quote(v)).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn required_among(errors: &mut Errors, path: Path, value: &str, allowed: &[&str]) {
    if value.is_empty() {
        errors.push(FieldError::required(path, listed(allowed)));
    } else {
        among(errors, path, value, allowed);
    }
}

fn failure_policy(errors: &mut Errors, path: Path, spec: &Value) {
    let rules = items(spec, "podFailurePolicy.rules");
    let path = path.child("rules");
    if rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(path, rules.len() as i64, MAX_RULES as i64));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        required_among(errors, path.child("action"), text(rule, "action"), &ACTIONS);
        if text(rule, "action") == "FailIndex" && int(spec, "backoffLimitPerIndex").is_none() {
            let message = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(path.child("action"), "FailIndex", message));
        }
        let (codes, conditions) = (at(rule, "onExitCodes"), items(rule, "onPodConditions"));
        if let Some(codes) = codes {
            exit_codes(errors, path.child("onExitCodes"), codes, spec);
        }
        let list = path.child("onPodConditions");
        for (j, condition) in conditions.iter().enumerate() {
            let path = list.index(j);
            follows(errors, path.child("type"), text(condition, "type"), names::qualified_name);
            required_among(errors, path.child("status"), text(condition, "status"), &STATUSES);
        }
        match (codes.is_some(), conditions.is_empty()) {
            (true, false) => {
                errors.push(without_value(path, "specifying both OnExitCodes and OnPodConditions is not supported"))
            }
            (false, true) => {
                errors.push(without_value(path, "specifying one of OnExitCodes and OnPodConditions is required"))
            }
            _ => {}
        }
    }
}

fn exit_codes(errors: &mut Errors, path: Path, codes: &Value, spec: &Value) {
    let operator = text(codes, "operator");
    required_among(errors, path.child("operator"), operator, &["In", "NotIn"]);
    if let Some(Value::String(name)) = at(codes, "containerName") {
        let lists = ["template.spec.containers", "template.spec.initContainers"];
        if !lists.iter().any(|list| items(spec, list).iter().any(|c| text(c, "name") == name)) {
            let message = "must be one of the container or initContainer names in the pod template";
            errors.push(FieldError::invalid(path.child("containerName"), name.as_str(), message));
        }
    }
    let values: Vec<i64> = items(codes, "values").iter().filter_map(Value::as_i64).collect();
    let path = path.child("values");
    if values.is_empty() {
        errors.push(FieldError::invalid(path, Value::Array(Vec::new()), "at least one value is required"));
    } else if values.len() > MAX_EXIT_CODES {
        errors.push(FieldError::too_many(path, values.len() as i64, MAX_EXIT_CODES as i64));
    }
    for (i, code) in values.iter().enumerate() {
        if operator == "In" && *code == 0 {
            errors.push(FieldError::invalid(path.index(i), 0, "must not be 0 for the In operator"));
        }
        if values.iter().take(i).any(|earlier| earlier == code) {
            errors.push(FieldError::duplicate(path.index(i), *code));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(path, Value::from(values), "must be ordered"));
    }
}

/// An update changes little of a job, and its template only before it started.
pub(crate) fn check_update(job: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let [new, was] = [job, old].map(|o| at(o, "spec").unwrap_or(&Value::Null));
    check_whole_spec(&mut errors, new);
    completions(&mut errors, path.child("completions"), new, was);
    immutable(&mut errors, path.child("selector"), at(new, "selector"), at(was, "selector"));
    template_update(&mut errors, path, new, old);
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(&mut errors, path.child(key), at(new, key), at(was, key));
    }
    completions_fit_name(&mut errors, job);
    errors
}

fn completions(errors: &mut Errors, path: Path, new: &Value, old: &Value) {
    let [now, was] = [new, old].map(|spec| at(spec, "completions"));
    if text(new, "completionMode") != "Indexed" {
        immutable(errors, path, now, was);
    } else if let Some(now) = now.filter(|now| !same(Some(now), was) && now.as_i64() != int(new, "parallelism")) {
        let message = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(path, now.clone(), message));
    }
}

/// A suspended job that has no pods may change where they go and what they ask for.
fn template_update(errors: &mut Errors, path: Path, spec: &Value, old: &Value) {
    let suspended = flag(old, "spec.suspend");
    let fresh = at(old, "status.startTime").is_none() || condition_true(old, "Suspended");
    let open = suspended && fresh && int(old, "status.active").unwrap_or(0) == 0;
    let mut was = at(old, "spec.template").cloned().unwrap_or(Value::Null);
    let new = at(spec, "template").unwrap_or(&Value::Null);
    if !open {
        immutable(errors, path.child("template"), Some(new), Some(&was));
        return;
    }
    let movable = ["nodeSelector", "tolerations", "schedulingGates", "affinity.nodeAffinity"];
    for part in movable
        .iter()
        .map(|p| format!("spec.{p}"))
        .chain(["metadata.labels", "metadata.annotations"].map(str::to_owned))
    {
        match at(new, &part).cloned() {
            Some(value) => set(&mut was, &part, value),
            None => drop(remove(&mut was, &part)),
        }
    }
    if crate::value::map(&was, "spec.affinity").is_some_and(|a| a.is_empty()) && at(new, "spec.affinity").is_none() {
        remove(&mut was, "spec.affinity");
    }
    for list in ["containers", "initContainers"] {
        let (ours, path) = (items(new, &format!("spec.{list}")).to_vec(), format!("spec.{list}"));
        let theirs = crate::value::items_mut(&mut was, &path);
        if theirs.len() == ours.len() {
            for (theirs, ours) in theirs.zip(&ours).filter(|(a, b)| text(a, "name") == text(b, "name")) {
                match at(ours, "resources").cloned() {
                    Some(resources) => set(theirs, "resources", resources),
                    None => drop(remove(theirs, "resources")),
                }
            }
        }
    }
    immutable(errors, path.child("template.spec"), at(new, "spec"), at(&was, "spec"));
}

/// Counters of a job.
pub(crate) fn check_status(job: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = at(job, "status").unwrap_or(&Value::Null);
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(&mut errors, &Path::root("status"), status, key);
    }
    for (one, other) in [("SuccessCriteriaMet", "Failed"), ("SuccessCriteriaMet", "FailureTarget")] {
        if condition_true(job, one) && condition_true(job, other) {
            let other = if other == "Failed" { "Failed=true" } else { "FailureTarget=true" };
            let message = format!("cannot set {one}=True and {other} conditions");
            errors.push(without_value("status.conditions", message));
        }
    }
    errors
}
