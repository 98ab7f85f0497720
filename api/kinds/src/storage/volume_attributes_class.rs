//! `volumeattributesclasses` of storage.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use super::{parameters, provisioner};
use crate::check::frozen;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{at, has_entries, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses")
        .short(&["vac"])
        .columns(vec![Column::name(), Column::text("DriverName"), Column::text("Age")])
        .hooks(Hooks { row, validate, validate_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "driverName").into(), age(object, now)]
}

fn validate(class: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    provisioner(&mut errors, Path::root("driverName"), text(class, "driverName"));
    if !has_entries(class, "parameters") {
        errors.push(FieldError::required("parameters", "must contain at least one key/value pair"));
    }
    parameters(&mut errors, class);
    errors
}

fn validate_update(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["driverName", "parameters"] {
        frozen(&mut errors, Path::root(key), at(class, key), at(old, key));
    }
    errors
}
