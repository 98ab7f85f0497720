//! `resourceslices` of resource.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use super::check_slice;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, name};
use crate::value::text;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("resource.k8s.io", "v1", "ResourceSlice", "resourceslices")
        .columns(vec![
            Column::name(),
            Column::text("Node"),
            Column::text("Driver"),
            Column::text("Pool"),
            Column::text("Age"),
        ])
        .selectable(vec![
            Selectable::path("spec.nodeName"),
            Selectable::path("spec.driver"),
            Selectable::at("spec.pool.name", &["spec.pool.name"]),
        ])
        .generations()
        .hooks(Hooks { row, validate: check_slice::create, validate_update: check_slice::update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let path = |p| Value::from(text(object, p));
    vec![name(object), path("spec.nodeName"), path("spec.driver"), path("spec.pool.name"), age(object, now)]
}
