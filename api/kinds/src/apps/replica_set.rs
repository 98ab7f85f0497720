//! `replicasets` of apps.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::apps::workload::replicated;
use crate::check::{immutable, not_negative};
use crate::core::pod_spec::defaults::spec_at;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, containers, count, name, selector};
use crate::value::at;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .category("all")
        .scale()
        .status()
        .columns(vec![
            Column::name(),
            Column::int("Desired"),
            Column::int("Current"),
            Column::int("Ready"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
            Column::text("Selector").wide(),
        ])
        .selectable(vec![Selectable::path("status.replicas").or("0")])
        .generations()
        .hooks(Hooks {
            row,
            default: |o| spec_at(o, "spec.template.spec"),
            validate: check,
            validate_update: check_update,
            validate_status: |o, _| crate::core::replica_status(o),
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    vec![
        name(object),
        count(object, "spec.replicas"),
        count(object, "status.replicas"),
        count(object, "status.readyReplicas"),
        age(object, now),
        names,
        images,
        selector(object, "spec.selector"),
    ]
}

fn check(set: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(set, "spec").unwrap_or(&Value::Null);
    not_negative(&mut errors, &path, spec, "replicas");
    not_negative(&mut errors, &path, spec, "minReadySeconds");
    replicated(&mut errors, path, spec);
    errors
}

fn check_update(set: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(set);
    let spec = Path::root("spec");
    immutable(&mut errors, spec.child("selector"), at(set, "spec.selector"), at(old, "spec.selector"));
    errors
}
