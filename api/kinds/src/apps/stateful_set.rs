//! `statefulsets` of apps.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::apps::workload::{amount, int_or_percent, matches_template, not_decremented, not_more_than_all, selector};
use crate::check::{Errors, among, immutable, named_if_set, not_negative};
use crate::core::persistent_volume_claim::fractions;
use crate::core::pod_spec::defaults::spec_at;
use crate::core::pod_spec::warnings as pod_warnings;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, containers, name};
use crate::value::{at, ensure_map, int, items, items_mut, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .category("all")
        .scale()
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Ready"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
        ])
        .generations()
        .hooks(Hooks {
            row,
            default,
            validate: |o| check(o, true),
            validate_update: check_update,
            validate_status: check_status,
            warnings,
            ..Hooks::NONE
        })
}

fn warnings(sts: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = pod_warnings::of_controller(sts, old, "spec.template");
    // Upstream's paths, which are not the same for a new object and a changed one.
    let below = if old.is_some() { ".Spec" } else { "" };
    for (i, claim) in items(sts, "spec.volumeClaimTemplates").iter().enumerate() {
        let path = format!("spec.volumeClaimTemplates[{i}]{below}");
        warnings.extend(fractions(at(claim, "spec").unwrap_or(&Value::Null), &path));
    }
    warnings
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    let number = |path| int(object, path).unwrap_or(0);
    let ready = format!("{}/{}", number("status.readyReplicas"), number("spec.replicas"));
    vec![name(object), ready.into(), age(object, now), names, images]
}

fn default(sts: &mut Value) {
    if text(sts, "spec.updateStrategy.type").is_empty() {
        set(sts, "spec.updateStrategy.type", "RollingUpdate");
        ensure_map(sts, "spec.updateStrategy.rollingUpdate");
    }
    for claim in items_mut(sts, "spec.volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
    }
    spec_at(sts, "spec.template.spec");
}

fn check(sts: &Value, with_template: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(sts, "spec").unwrap_or(&Value::Null);
    match text(spec, "podManagementPolicy") {
        "" => errors.push(FieldError::required(path.child("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            let message = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid(path.child("podManagementPolicy"), other, message));
        }
    }
    strategy(&mut errors, path.child("updateStrategy"), at(spec, "updateStrategy").unwrap_or(&Value::Null));
    if let Some(policy) = at(spec, "persistentVolumeClaimRetentionPolicy") {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for key in ["whenDeleted", "whenScaled"] {
            among(&mut errors, path.child(key), text(policy, key), &["Retain", "Delete"]);
        }
    }
    let claims = path.child("volumeClaimTemplates");
    for (i, claim) in items(spec, "volumeClaimTemplates").iter().enumerate() {
        let claim_path = claims.index(i);
        crate::core::persistent_volume_claim::validate_spec(
            &mut errors,
            claim_path.child("spec"),
            at(claim, "spec").unwrap_or(&Value::Null),
        );
    }
    not_negative(&mut errors, &path, spec, "replicas");
    not_negative(&mut errors, &path, spec, "minReadySeconds");
    let start = at(spec, "ordinals").unwrap_or(&Value::Null);
    not_negative(&mut errors, &path.child("ordinals"), start, "start");
    named_if_set(&mut errors, &path, spec, "serviceName", names::dns1123_label);
    selector(&mut errors, path, spec, "statefulset");
    let template_path = path.child("template");
    if !matches_template(&mut errors, template_path, spec) {
        let value = at(spec, "selector").cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(path.child("selector"), value, ""));
    } else if with_template {
        crate::core::pod_spec::template(&mut errors, template_path, Some(&pod_template(spec)));
    }
    let template = at(spec, "template").unwrap_or(&Value::Null);
    crate::core::replicas::always_running(&mut errors, template_path, template, "StatefulSet");
    errors
}

/// The template as its pods have it: the controller names them, and adds a volume for each claim.
fn pod_template(spec: &Value) -> Value {
    let mut template = at(spec, "template").cloned().unwrap_or(Value::Null);
    let names: Vec<&str> = items(spec, "volumeClaimTemplates").iter().map(|c| text(c, "metadata.name")).collect();
    let pod = ensure_map(&mut template, "spec");
    pod.remove("subdomain");
    pod.remove("hostname");
    if !names.is_empty() {
        let own = pod.remove("volumes").unwrap_or(Value::Null);
        let claims = names.iter().map(|n| serde_json::json!({"name": n, "persistentVolumeClaim": {"claimName": n}}));
        let rest = own.as_array().into_iter().flatten().filter(|v| !names.contains(&text(v, "name"))).cloned();
        pod.insert("volumes".to_owned(), Value::Array(claims.chain(rest).collect()));
    }
    template
}

fn strategy(errors: &mut Errors, path: Path, strategy: &Value) {
    let rolling = path.child("rollingUpdate");
    match (text(strategy, "type"), at(strategy, "rollingUpdate")) {
        ("", _) => errors.push(FieldError::required(path, "")),
        ("OnDelete" | "RollingUpdate", None) => {}
        ("OnDelete", Some(update)) => {
            let message = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(rolling, update.clone(), message));
        }
        ("RollingUpdate", Some(update)) => {
            not_negative(errors, &rolling, update, "partition");
            if let Some(most) = at(update, "maxUnavailable") {
                let path = rolling.child("maxUnavailable");
                int_or_percent(errors, path, most);
                if amount(Some(most)) == 0 {
                    errors.push(FieldError::invalid(path, most.clone(), "cannot be 0"));
                }
                not_more_than_all(errors, path, most);
            }
        }
        _ => {
            let message = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(path, strategy.clone(), message));
        }
    }
}

/// A template that was let in by an older server stays.
fn check_update(sts: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(sts, check(old, true).is_empty());
    let spec = Path::root("spec");
    let [new, old] = [sts, old].map(|o| at(o, "spec").unwrap_or(&Value::Null));
    if text(new, "serviceName") == text(old, "serviceName") {
        errors.retain(|e| e.path != "spec.serviceName");
    }
    for key in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
        immutable(&mut errors, spec.child(key), at(new, key), at(old, key));
    }
    errors
}

fn check_status(sts: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("status");
    let status = at(sts, "status").unwrap_or(&Value::Null);
    let counts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    for key in counts.iter().chain(&["replicas", "observedGeneration", "collisionCount"]) {
        not_negative(&mut errors, &path, status, key);
    }
    let count = |key: &str| int(status, key).unwrap_or(0);
    for key in counts {
        if count(key) > count("replicas") {
            let message = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(path.child(key), count(key), message));
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let message = "cannot be greater than status.readyReplicas";
        errors.push(FieldError::invalid(path.child("availableReplicas"), count("availableReplicas"), message));
    }
    let (new, old) = (int(status, "collisionCount"), int(old, "status.collisionCount"));
    not_decremented(&mut errors, path.child("collisionCount"), new, old);
    errors
}
