//! `volumeattributesclasses` of storage.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::text;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses")
        .short(&["vac"])
        .columns(vec![Column::name(), Column::text("DriverName"), Column::text("Age")])
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "driverName").into(), age(object, now)]
}
