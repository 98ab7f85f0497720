//! `namespaces`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Action, Column, Kind, NameRule, Selectable, Verbs};
use crate::print::{age, name};
use crate::value::text;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .without(Verbs::DELETE_COLLECTION)
        .own("finalize", Action::Finalize, Verbs::UPDATE)
        .status()
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Age")])
        .selectable(vec![Selectable::path("status.phase")])
        .names(NameRule::Label)
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "status.phase").into(), age(object, now)]
}
