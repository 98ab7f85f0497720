//! `secrets`.

use base64::Engine;
use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, name};
use crate::value::{ensure_map, map, remove, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Secret", "secrets")
        .columns(vec![Column::name(), Column::text("Type"), Column::text("Data"), Column::text("Age")])
        .selectable(vec![Selectable::path("type")])
        .hooks(Hooks { row, default, prepare_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "type").into(), map(object, "data").map_or(0, |m| m.len()).into(), age(object, now)]
}

/// Plain text entries join the encoded ones, over which they win, and are not kept.
fn default(secret: &mut Value) {
    let Some(Value::Object(plain)) = remove(secret, "stringData") else { return };
    if plain.is_empty() {
        return;
    }
    let data = ensure_map(secret, "data");
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or(""));
        data.insert(key, encoded.into());
    }
}

/// An update without a type keeps the one there is.
fn prepare_update(secret: &mut Value, old: &Value, _context: &Context) {
    if text(secret, "type").is_empty() {
        set(secret, "type", text(old, "type"));
    }
}
