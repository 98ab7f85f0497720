//! `devicetaintrules` of resource.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use super::{driver_name, pool_name, taint};
use crate::check::follows;
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, name, since};
use crate::value::{at, items, set, text};

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
        .hooks(Hooks {
            row,
            prepare_create,
            prepare_update,
            validate,
            validate_update: |o, _| validate(o),
            validate_status,
            ..Hooks::NONE
        })
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

fn validate(rule: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    if let Some(selector) = at(rule, "spec.deviceSelector") {
        let path = path.child("deviceSelector");
        if let Some(driver) = at(selector, "driver").and_then(Value::as_str) {
            driver_name(&mut errors, path.child("driver"), driver);
        }
        if let Some(pool) = at(selector, "pool").and_then(Value::as_str) {
            pool_name(&mut errors, path.child("pool"), pool);
        }
        if let Some(device) = at(selector, "device").and_then(Value::as_str) {
            follows(&mut errors, path.child("device"), device, names::dns1123_label);
        }
    }
    taint(&mut errors, path.child("taint"), at(rule, "spec.taint").unwrap_or(&Value::Null));
    errors
}

fn validate_status(rule: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::root("status");
    crate::conditions::validate(&mut errors, status.child("conditions"), items(rule, "status.conditions"));
    errors
}
