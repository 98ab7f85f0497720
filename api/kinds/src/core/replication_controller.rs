//! `replicationcontrollers`.

use meta::{FieldError, Path};
use serde_json::Value;

use crate::core::pod_spec::defaults::spec_at;
use crate::core::pod_spec::template;
use crate::core::replicas;
use crate::hooks::Hooks;
use crate::kind::Kind;
use crate::print::labels;
use crate::value::{at, default_at, has_entries, map};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    let kind = Kind::namespaced_row("", "v1", "ReplicationController", "replicationcontrollers").short(&["rc"]);
    replicas::kind(
        kind.stored_at("/registry/controllers"),
        Hooks {
            row: |o, now| replicas::row(o, now, labels(o, "spec.selector")),
            default,
            validate: check,
            validate_update: |o, _| check(o),
            ..Hooks::NONE
        },
    )
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
    replicas::counts(&mut errors, &path, spec);
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
    replicas::always_running(&mut errors, template_path, pod, "ReplicationController");
    errors
}
