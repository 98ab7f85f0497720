//! `storageversionmigrations` of storagemigration.k8s.io.

use jiff::Timestamp;
use meta::gvk::qualified;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{follows, frozen};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::name;
use crate::value::{at, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storagemigration.k8s.io", "v1", "StorageVersionMigration", "storageversionmigrations")
        .status()
        .columns(vec![Column::text("Name"), Column::text("Resource"), Column::text("Status")])
        .conditional_update()
        .fixed_status_metadata()
        .hooks(Hooks { row, validate, validate_update, validate_status, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let resource = qualified(text(object, "spec.resource.resource"), text(object, "spec.resource.group"));
    let mut held =
        items(object, "status.conditions").iter().filter(|c| text(c, "status") == "True").map(|c| text(c, "type"));
    let state = held.rfind(|t| ["Running", "Failed", "Succeeded"].contains(t)).unwrap_or("Unknown");
    vec![name(object), resource.into(), state.into()]
}

fn validate(migration: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::root("spec");
    let path = spec.child("resource");
    match text(migration, "spec.resource.resource") {
        "" => errors.push(FieldError::required(path.child("resource"), "resource is required")),
        resource => follows(&mut errors, path.child("resource"), resource, names::dns1035_label),
    }
    let group = text(migration, "spec.resource.group");
    if !group.is_empty() {
        follows(&mut errors, path.child("group"), group, names::dns1123_subdomain);
    }
    errors
}

fn validate_update(migration: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    frozen(&mut errors, Path::root("spec"), at(migration, "spec"), at(old, "spec"));
    errors
}

fn validate_status(migration: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::root("status");
    let conditions = items(migration, "status.conditions");
    crate::conditions::validate(&mut errors, status.child("conditions"), conditions);
    let version = text(migration, "status.resourceVersion");
    if !version.is_empty() && version.parse::<u64>().is_err() {
        errors.push(FieldError::invalid(
            status.child("resourceVersion"),
            version,
            "resource version is not well formed",
        ));
    }
    errors
}
