//! `devicetaintrules` of resource.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, name, since};
use crate::value::{at, set, text};

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
        .fixed_status_metadata()
        .hooks(Hooks { row, prepare_create, prepare_update, ..Hooks::NONE })
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

const ADDED: &str = "spec.taint.timeAdded";

/// A taint counts from now unless it says since when.
fn prepare_create(rule: &mut Value, context: &Context) {
    if at(rule, ADDED).is_none() {
        set(rule, ADDED, meta::time::format(context.now));
    }
}

/// Another effect counts from now.
fn prepare_update(rule: &mut Value, old: &Value, context: &Context) {
    let effect = text(rule, "spec.taint.effect") != text(old, "spec.taint.effect");
    if at(rule, ADDED).is_none() || (effect && text(rule, ADDED) == text(old, ADDED)) {
        set(rule, ADDED, meta::time::format(context.now));
    }
}
