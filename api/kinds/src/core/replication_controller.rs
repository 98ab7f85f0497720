//! `replicationcontrollers`.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::not_negative;
use crate::core::pod_spec::defaults::spec_at;
use crate::core::pod_spec::template;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, containers, count, labels, name};
use crate::value::{at, default_at, has_entries, map};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .category("all")
        .stored_at("/registry/controllers")
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
            default,
            validate: |o| check(o),
            validate_update: |o, _| check(o),
            validate_status: |o, _| super::replica_status(o),
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
        labels(object, "spec.selector"),
    ]
}

/// Selector and labels are those of the template unless given.
fn default(rc: &mut Value) {
    if let Some(labels) = at(rc, "spec.template.metadata.labels").cloned() {
        for path in ["spec.selector", "metadata.labels"] {
            if !has_entries(rc, path) {
                default_at(rc, path, labels.clone());
            }
        }
    }
    spec_at(rc, "spec.template.spec");
}

fn check(rc: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(rc, "spec").unwrap_or(&Value::Null);
    not_negative(&mut errors, &path, spec, "minReadySeconds");
    not_negative(&mut errors, &path, spec, "replicas");
    let selector = map(spec, "selector").filter(|s| !s.is_empty());
    if selector.is_none() {
        errors.push(FieldError::required(path.child("selector"), ""));
    }
    let template_path = path.child("template");
    let Some(pod) = at(spec, "template") else {
        errors.push(FieldError::required(template_path, ""));
        return errors;
    };
    let labels = map(pod, "metadata.labels");
    let matches = |key: &String, value: &Value| labels.is_some_and(|l| l.get(key) == Some(value));
    if selector.is_some_and(|s| !s.iter().all(|(key, value)| matches(key, value))) {
        let metadata = template_path.child("metadata");
        let value = labels.cloned().map_or(Value::Null, Value::Object);
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(metadata.child("labels"), value, message));
    }
    template(&mut errors, template_path, Some(pod));
    super::always_running(&mut errors, template_path, pod, "ReplicationController");
    errors
}
