//! `storageclasses` of storage.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use super::{parameters, provisioner};
use crate::check::{Errors, frozen, label_name};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, name, text_or};
use crate::value::{at, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .short(&["sc"])
        .columns(vec![
            Column::name(),
            Column::text("Provisioner"),
            Column::text("ReclaimPolicy"),
            Column::text("VolumeBindingMode"),
            Column::text("AllowVolumeExpansion"),
            Column::text("Age"),
        ])
        .hooks(Hooks { row, validate: check, validate_update: check_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "provisioner").into(),
        text_or(object, "reclaimPolicy", "Delete"),
        text_or(object, "volumeBindingMode", "Immediate"),
        boolean(object, "allowVolumeExpansion"),
        age(object, now),
    ]
}

fn check(class: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    provisioner(&mut errors, Path::root("provisioner"), text(class, "provisioner"));
    parameters(&mut errors, class);
    if let Some(Value::String(policy)) = at(class, "reclaimPolicy").filter(|p| *p != "") {
        crate::check::among(&mut errors, Path::root("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    match at(class, "volumeBindingMode").and_then(Value::as_str) {
        None => errors.push(FieldError::required("volumeBindingMode", "")),
        Some(mode) => {
            let modes = ["Immediate", "WaitForFirstConsumer"];
            crate::check::among(&mut errors, Path::root("volumeBindingMode"), mode, &modes);
        }
    }
    topologies(&mut errors, class);
    errors
}

/// Where volumes may be: terms of which one must hold.
fn topologies(errors: &mut Errors, class: &Value) {
    let list = Path::root("allowedTopologies");
    let terms = items(class, "allowedTopologies");
    for (i, term) in terms.iter().enumerate() {
        let path = list.index(i);
        let expressions = items(term, "matchLabelExpressions");
        let list = path.child("matchLabelExpressions");
        for (j, expression) in expressions.iter().enumerate() {
            let (path, key) = (list.index(j), text(expression, "key"));
            let values = items(expression, "values");
            if values.is_empty() {
                errors.push(FieldError::required(path.child("values"), ""));
            }
            for (k, value) in values.iter().enumerate().filter(|(k, v)| values[..*k].contains(v)) {
                errors.push(FieldError::duplicate(path.child("values").index(k), value.clone()));
            }
            label_name(errors, path.child("key"), key);
            if expressions[..j].iter().any(|e| text(e, "key") == key) {
                errors.push(FieldError::duplicate(path.child("key"), key));
            }
        }
        if terms[..i].contains(term) {
            errors.push(FieldError::duplicate(path.child("matchLabelExpressions"), ""));
        }
    }
}

fn check_update(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        frozen(&mut errors, Path::root(key), at(class, key), at(old, key));
    }
    errors
}
