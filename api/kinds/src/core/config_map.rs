//! `configmaps`.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::{follows, immutable};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{at, flag, map};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ConfigMap", "configmaps")
        .short(&["cm"])
        .columns(vec![Column::name(), Column::text("Data"), Column::text("Age")])
        .hooks(Hooks { row, validate, validate_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = map(object, "data").map_or(0, |m| m.len()) + map(object, "binaryData").map_or(0, |m| m.len());
    vec![name(object), entries.into(), age(object, now)]
}

/// All values of one object together, in bytes.
pub(crate) const TOTAL_LIMIT: usize = 1024 * 1024;

fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut total = 0;
    let binary = map(object, "binaryData");
    for (key, value) in map(object, "data").into_iter().flatten() {
        let data = Path::root("data");
        follows(&mut errors, data.key(key), key, meta::names::config_map_key);
        if binary.is_some_and(|b| b.contains_key(key)) {
            errors.push(FieldError::invalid(data.key(key), key.as_str(), "duplicate of key present in binaryData"));
        }
        total += value.as_str().map_or(0, str::len);
    }
    for (key, value) in binary.into_iter().flatten() {
        follows(&mut errors, Path::root("binaryData").key(key), key, meta::names::config_map_key);
        total += super::decoded_len(value);
    }
    if total > TOTAL_LIMIT {
        errors.push(FieldError::too_long("", TOTAL_LIMIT as i64));
    }
    errors
}

fn validate_update(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if flag(old, "immutable") {
        if !flag(object, "immutable") {
            errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
        }
        for key in ["data", "binaryData"] {
            let mut found = Vec::new();
            immutable(&mut found, Path::root(key), at(object, key), at(old, key));
            if !found.is_empty() {
                errors.push(FieldError::forbidden(key, "field is immutable when `immutable` is set"));
            }
        }
    }
    errors.extend(validate(object));
    errors
}
