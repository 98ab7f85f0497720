//! `deployments` of apps.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::apps::workload::{amount, int_or_percent, not_decremented, not_more_than_all, replicated};
use crate::check::{Errors, immutable, not_negative};
use crate::core::pod_spec::defaults::spec_at;
use crate::core::pod_spec::warnings;
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, containers, count, name, selector_text};
use crate::value::{at, ensure_map, int, same, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .category("all")
        .scale()
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Ready"),
            Column::text("Up-to-date"),
            Column::text("Available"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
            Column::text("Selector").wide(),
        ])
        .generations()
        .hooks(Hooks {
            row,
            default,
            prepare_update,
            prepare_status,
            validate: check,
            validate_update: check_update,
            validate_status: check_status,
            warnings: |o, old| warnings::of_controller(o, old, "spec.template"),
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    let number = |path| int(object, path).unwrap_or(0);
    let selector = at(object, "spec.selector").map_or_else(|| Some(String::new()), selector_text);
    vec![
        name(object),
        format!("{}/{}", number("status.readyReplicas"), number("spec.replicas")).into(),
        count(object, "status.updatedReplicas"),
        count(object, "status.availableReplicas"),
        age(object, now),
        names,
        images,
        selector.unwrap_or_else(|| "<invalid>".to_owned()).into(),
    ]
}

fn default(deployment: &mut Value) {
    if text(deployment, "spec.strategy.type") == "RollingUpdate" {
        ensure_map(deployment, "spec.strategy.rollingUpdate");
    }
    spec_at(deployment, "spec.template.spec");
}

/// Annotations count as desired state too, since rollouts copy them.
fn prepare_update(deployment: &mut Value, old: &Value, _context: &Context) {
    if !same(at(deployment, "metadata.annotations"), at(old, "metadata.annotations")) {
        let next = int(old, "metadata.generation").unwrap_or(0) + 1;
        set(deployment, "metadata.generation", next);
    }
}

/// Labels change through the main resource only.
fn prepare_status(deployment: &mut Value, old: &Value, _context: &Context) {
    let metadata = ensure_map(deployment, "metadata");
    match at(old, "metadata.labels") {
        Some(labels) => drop(metadata.insert("labels".to_owned(), labels.clone())),
        None => drop(metadata.remove("labels")),
    }
}

fn check(deployment: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(deployment, "spec").unwrap_or(&Value::Null);
    not_negative(&mut errors, &path, spec, "replicas");
    replicated(&mut errors, path, spec);
    strategy(&mut errors, path.child("strategy"), at(spec, "strategy").unwrap_or(&Value::Null));
    for key in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        not_negative(&mut errors, &path, spec, key);
    }
    let ready = int(spec, "minReadySeconds").unwrap_or(0);
    if let Some(deadline) = int(spec, "progressDeadlineSeconds").filter(|deadline| *deadline <= ready) {
        let message = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(path.child("progressDeadlineSeconds"), deadline, message));
    }
    errors
}

fn strategy(errors: &mut Errors, path: Path, strategy: &Value) {
    let rolling = path.child("rollingUpdate");
    match (text(strategy, "type"), at(strategy, "rollingUpdate")) {
        ("Recreate", Some(_)) => {
            let message = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(rolling, message));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(FieldError::required(rolling, "this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(update)) => {
            for key in ["maxUnavailable", "maxSurge"] {
                int_or_percent(errors, rolling.child(key), at(update, key).unwrap_or(&Value::Null));
            }
            let unavailable = at(update, "maxUnavailable").cloned().unwrap_or(0.into());
            if amount(Some(&unavailable)) == 0 && amount(at(update, "maxSurge")) == 0 {
                let message = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(rolling.child("maxUnavailable"), unavailable.clone(), message));
            }
            not_more_than_all(errors, rolling.child("maxUnavailable"), &unavailable);
        }
        _ => errors.push(FieldError::not_supported(path, strategy.clone(), ["Recreate", "RollingUpdate"])),
    }
}

fn check_update(deployment: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(deployment);
    let spec = Path::root("spec");
    immutable(&mut errors, spec.child("selector"), at(deployment, "spec.selector"), at(old, "spec.selector"));
    errors
}

fn check_status(deployment: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = crate::core::replicas::status(deployment);
    let path = Path::root("status");
    let status = at(deployment, "status").unwrap_or(&Value::Null);
    for key in ["updatedReplicas", "unavailableReplicas", "terminatingReplicas", "collisionCount"] {
        not_negative(&mut errors, &path, status, key);
    }
    let updated = int(status, "updatedReplicas").unwrap_or(0);
    if updated > int(status, "replicas").unwrap_or(0) {
        let message = "cannot be greater than status.replicas";
        errors.push(FieldError::invalid(path.child("updatedReplicas"), updated, message));
    }
    let (new, old) = (int(status, "collisionCount"), int(old, "status.collisionCount"));
    not_decremented(&mut errors, path.child("collisionCount"), new, old);
    errors
}
