//! `devicetaintrules` of resource.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name, since};
use crate::value::{at, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("resource.k8s.io", "v1", "DeviceTaintRule", "devicetaintrules")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Key"),
            Column::text("Value"),
            Column::text("Effect"),
            Column::text("TimeAdded"),
            Column::text("Age"),
        ])
        .conditional_update()
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let added = at(object, "spec.taint.timeAdded").map(|_| since(object, "spec.taint.timeAdded", now));
    vec![
        name(object),
        text(object, "spec.taint.key").into(),
        text(object, "spec.taint.value").into(),
        text(object, "spec.taint.effect").into(),
        added.unwrap_or_default().into(),
        age(object, now),
    ]
}
