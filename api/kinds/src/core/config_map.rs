//! `configmaps`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::map;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ConfigMap", "configmaps")
        .short(&["cm"])
        .columns(vec![Column::name(), Column::text("Data"), Column::text("Age")])
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = map(object, "data").map_or(0, |m| m.len()) + map(object, "binaryData").map_or(0, |m| m.len());
    vec![name(object), entries.into(), age(object, now)]
}
