//! `storageclasses` of storage.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{follows, frozen};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, name, text_or};
use crate::value::{at, text};

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
    match text(class, "provisioner") {
        "" => errors.push(FieldError::required("provisioner", "")),
        provisioner => {
            let lower = provisioner.to_lowercase();
            follows(&mut errors, Path::root("provisioner"), &lower, names::qualified_name);
        }
    }
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
    errors
}

fn check_update(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        frozen(&mut errors, Path::root(key), at(class, key), at(old, key));
    }
    errors
}
