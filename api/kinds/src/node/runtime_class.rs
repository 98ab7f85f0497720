//! `runtimeclasses` of node.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::{Value, json};

use crate::check::{follows, immutable, labels};
use crate::core::pod_spec::resources::{Of, requirements};
use crate::core::pod_spec::tolerations;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{at, has_entries, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .columns(vec![Column::name(), Column::text("Handler"), Column::text("Age")])
        .conditional_update()
        .created_by_update()
        .hooks(Hooks { row, validate, validate_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "handler").into(), age(object, now)]
}

fn validate(class: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(class, "handler") {
        "" => errors.push(FieldError::required("handler", "")),
        handler => follows(&mut errors, Path::root("handler"), handler, names::dns1123_label),
    }
    if has_entries(class, "overhead.podFixed") {
        let limits = json!({"limits": at(class, "overhead.podFixed")});
        requirements(&mut errors, Path::root("overhead").child("podFixed"), &limits, Of::Container);
    }
    let Some(scheduling) = at(class, "scheduling") else { return errors };
    let path = Path::root("scheduling");
    labels(&mut errors, path.child("nodeSelector"), scheduling, "nodeSelector");
    let list = path.child("tolerations");
    let all = items(scheduling, "tolerations");
    tolerations(&mut errors, list, all);
    for (i, toleration) in all.iter().enumerate().filter(|(i, t)| all[..*i].contains(t)) {
        errors.push(FieldError::duplicate(list.index(i), toleration.clone()));
    }
    errors
}

fn validate_update(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    immutable(&mut errors, Path::root("handler"), at(class, "handler"), at(old, "handler"));
    errors
}
