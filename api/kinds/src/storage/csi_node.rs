//! `csinodes` of storage.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::items;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "CSINode", "csinodes")
        .status()
        .columns(vec![Column::name(), Column::int("Drivers"), Column::text("Age")])
        .conditional_update()
        .fixed_status_metadata()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items(object, "spec.drivers").len().into(), age(object, now)]
}
