//! `secrets`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, name};
use crate::value::{map, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Secret", "secrets")
        .columns(vec![Column::name(), Column::text("Type"), Column::text("Data"), Column::text("Age")])
        .selectable(vec![Selectable::path("type")])
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "type").into(), map(object, "data").map_or(0, |m| m.len()).into(), age(object, now)]
}
