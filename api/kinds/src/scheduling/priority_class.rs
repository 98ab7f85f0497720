//! `priorityclasses` of scheduling.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, count, name};
use crate::value::text;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .columns(vec![
            Column::name(),
            Column::int("Value"),
            Column::boolean("Global-Default"),
            Column::text("Age"),
            Column::text("PreemptionPolicy"),
        ])
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        count(object, "value"),
        boolean(object, "globalDefault"),
        age(object, now),
        text(object, "preemptionPolicy").into(),
    ]
}
