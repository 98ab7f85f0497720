//! `controllerrevisions` of apps.

use jiff::Timestamp;
use meta::gvk::split_api_version;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::immutable;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, count, name};
use crate::value::{at, flag, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "ControllerRevision", "controllerrevisions")
        .columns(vec![Column::name(), Column::text("Controller"), Column::text("Revision"), Column::text("Age")])
        .hooks(Hooks { row, validate: check, validate_update: check_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let owner = items(object, "metadata.ownerReferences").iter().find(|o| flag(o, "controller"));
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |o| match split_api_version(text(o, "apiVersion")).0 {
            "" => format!("{}/{}", text(o, "kind").to_lowercase(), text(o, "name")),
            group => format!("{}.{}/{}", text(o, "kind").to_lowercase(), group.to_lowercase(), text(o, "name")),
        },
    );
    vec![name(object), controller.into(), count(object, "revision"), age(object, now)]
}

fn check_revision(revision: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(number) = crate::value::int(revision, "revision").filter(|n| *n < 0) {
        errors.push(FieldError::invalid("revision", number, crate::check::NEGATIVE));
    }
    errors
}

fn check(revision: &Value) -> Vec<FieldError> {
    let mut errors = check_revision(revision);
    match at(revision, "data") {
        Some(Value::Object(_)) => {}
        None => errors.push(FieldError::required("data", "data is mandatory")),
        Some(_) => errors.push(FieldError::required("data", "data must be a valid JSON object")),
    }
    errors
}

fn check_update(revision: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check_revision(revision);
    immutable(&mut errors, Path::root("data"), at(revision, "data"), at(old, "data"));
    errors
}
