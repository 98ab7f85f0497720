//! `secrets`.

use base64::Engine;
use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::{follows, immutable};
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, name};
use crate::value::{at, ensure_map, flag, map, remove, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Secret", "secrets")
        .columns(vec![Column::name(), Column::text("Type"), Column::text("Data"), Column::text("Age")])
        .selectable(vec![Selectable::path("type")])
        .hooks(Hooks { row, default, prepare_update, validate, validate_update, ..Hooks::NONE })
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

/// All values of one object together, in bytes.
const TOTAL_LIMIT: usize = 1024 * 1024;

/// Keys that secrets of a type must have.
const NEEDED: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

fn validate(secret: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("data");
    let data = map(secret, "data");
    let mut total = 0;
    for (key, value) in data.into_iter().flatten() {
        follows(&mut errors, path.key(key), key, meta::names::config_map_key);
        total += super::decoded_len(value);
    }
    if total > TOTAL_LIMIT {
        errors.push(FieldError::too_long(path, TOTAL_LIMIT as i64));
    }
    let kind = text(secret, "type");
    let has = |key: &str| data.is_some_and(|d| d.contains_key(key));
    if kind == "kubernetes.io/service-account-token" {
        let metadata = Path::root("metadata");
        let annotations = metadata.child("annotations");
        let name = "kubernetes.io/service-account.name";
        let account = map(secret, "metadata.annotations").and_then(|a| a.get(name)).and_then(Value::as_str);
        if account.unwrap_or("").is_empty() {
            errors.push(FieldError::required(annotations.key(name), ""));
        }
    }
    if kind == "kubernetes.io/basic-auth" && !has("username") && !has("password") {
        errors.push(FieldError::required(path.key("username"), ""));
        errors.push(FieldError::required(path.key("password"), ""));
    }
    for key in NEEDED.iter().filter(|(of, _)| *of == kind).flat_map(|(_, keys)| keys.iter()) {
        if !has(key) {
            errors.push(FieldError::required(path.key(key), ""));
        } else if key.starts_with(".docker") && !holds_json(data.and_then(|d| d.get(*key))) {
            errors.push(FieldError::invalid(path.key(key), "<secret contents redacted>", "invalid character"));
        }
    }
    errors
}

fn holds_json(value: Option<&Value>) -> bool {
    let bytes = value.and_then(Value::as_str).and_then(|v| base64::engine::general_purpose::STANDARD.decode(v).ok());
    bytes.is_some_and(|b| serde_json::from_slice::<serde::de::IgnoredAny>(&b).is_ok())
}

fn validate_update(secret: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    immutable(&mut errors, Path::root("type"), at(secret, "type"), at(old, "type"));
    if flag(old, "immutable") {
        if !flag(secret, "immutable") {
            errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
        }
        if !crate::value::same(at(secret, "data"), at(old, "data")) {
            errors.push(FieldError::forbidden("data", "field is immutable when `immutable` is set"));
        }
    }
    errors.extend(validate(secret));
    errors
}
