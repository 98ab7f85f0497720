//! `jobs` of batch.

use jiff::Timestamp;
use serde_json::Value;

use crate::batch::job_validate::{check, check_status, check_update};
use crate::core::pod_spec::defaults::spec_at;
use crate::core::pod_spec::warnings;
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, condition_true, containers, name, selector, time};
use crate::value::{at, default_at, ensure_map, flag, has_entries, int, map, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("batch", "v1", "Job", "jobs")
        .category("all")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Status"),
            Column::text("Completions"),
            Column::text("Duration"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
            Column::text("Selector").wide(),
        ])
        .selectable(vec![Selectable::at("status.successful", &["status.succeeded"]).or("0")])
        .generations()
        .hooks(Hooks {
            row,
            default,
            prepare_create,
            validate: check,
            validate_update: check_update,
            validate_status: |o, _| check_status(o),
            warnings: |o, old| warnings::of_controller(o, old, "spec.template"),
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    let succeeded = int(object, "status.succeeded").unwrap_or(0);
    let completions = match (int(object, "spec.completions"), int(object, "spec.parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = time(object, "status.startTime").map(|start| {
        let end = time(object, "status.completionTime").unwrap_or(now);
        meta::duration::human(end.as_second() - start.as_second())
    });
    vec![
        name(object),
        status(object).into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        age(object, now),
        names,
        images,
        selector(object, "spec.selector"),
    ]
}

fn status(object: &Value) -> &'static str {
    if condition_true(object, "Complete") {
        "Complete"
    } else if condition_true(object, "Failed") {
        "Failed"
    } else if at(object, "metadata.deletionTimestamp").is_some() {
        "Terminating"
    } else if condition_true(object, "Suspended") {
        "Suspended"
    } else if condition_true(object, "FailureTarget") {
        "FailureTarget"
    } else if condition_true(object, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// Label of the pods of a job with its uid.
pub(crate) const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";

/// Retries when failures are counted for the whole job.
const BACKOFF_LIMIT: i64 = 6;

fn default(job: &mut Value) {
    if at(job, "spec").is_none() {
        return;
    }
    if at(job, "spec.completions").is_none() && at(job, "spec.parallelism").is_none() {
        default_at(job, "spec.completions", 1);
    }
    default_at(job, "spec.parallelism", 1);
    let per_index = at(job, "spec.backoffLimitPerIndex").is_some();
    default_at(job, "spec.backoffLimit", if per_index { i64::from(i32::MAX) } else { BACKOFF_LIMIT });
    labels_of_template(job);
    default_at(job, "spec.completionMode", "NonIndexed");
    default_at(job, "spec.suspend", false);
    let only_failed = at(job, "spec.podFailurePolicy").is_some();
    default_at(job, "spec.podReplacementPolicy", if only_failed { "Failed" } else { "TerminatingOrFailed" });
    default_at(job, "spec.manualSelector", false);
    spec_at(job, "spec.template.spec");
}

/// A job without labels has those of its pods, once they are complete.
fn labels_of_template(job: &mut Value) {
    let labels = map(job, "spec.template.metadata.labels").filter(|l| !l.is_empty()).cloned();
    let complete = flag(job, "spec.manualSelector") || labels.as_ref().is_some_and(|l| l.contains_key(UID_LABEL));
    if let (Some(labels), true, false) = (labels, complete, has_entries(job, "metadata.labels")) {
        default_at(job, "metadata.labels", labels);
    }
}

/// Unless the user selects by hand, a job selects its pods by its own uid, which their labels carry.
fn prepare_create(job: &mut Value, _context: &Context) {
    if flag(job, "spec.manualSelector") {
        return;
    }
    let (name, uid) = (text(job, "metadata.name").to_owned(), text(job, "metadata.uid").to_owned());
    let labels = ensure_map(job, "spec.template.metadata.labels");
    for key in ["job-name", "batch.kubernetes.io/job-name"] {
        labels.entry(key).or_insert_with(|| name.as_str().into());
    }
    for key in ["controller-uid", UID_LABEL] {
        labels.entry(key).or_insert_with(|| uid.as_str().into());
    }
    let selector = ensure_map(job, "spec.selector.matchLabels");
    selector.entry(UID_LABEL).or_insert_with(|| uid.into());
}
