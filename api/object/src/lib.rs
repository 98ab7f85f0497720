//! The dynamic object: paths, patches, server-side apply and managed fields. Pure.
//!
//! Objects are `serde_json::Value`; their shape comes from a `schema::Schema`. [`path`] reads and writes fields;
//! [`json_patch`], [`merge_patch`] and [`strategic`] are the three patches.

pub mod json_patch;
pub mod merge_patch;
pub mod path;
pub mod strategic;

use serde_json::Value;

/// The name of a JSON type in messages of the decoder.
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
