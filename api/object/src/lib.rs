//! The dynamic object: paths, patches, server-side apply and managed fields. Pure.
//!
//! Objects are `serde_json::Value`; their shape comes from a `schema::Schema`. `path` reads and writes fields;
//! [`json_patch`], [`merge_patch`] and [`strategic`] are the three patches; [`apply`] is the fourth, server-side apply,
//! and tracks who owns which field on every other write; `fields` are the sets of paths, [`managed`] the entries of
//! `metadata.managedFields`, [`metadata()`] and its like the rest of `metadata`.

#![warn(missing_docs)]

pub mod apply;
pub mod compare;
mod fields;
pub mod json_patch;
pub mod managed;
mod merge;
pub mod merge_patch;
mod metadata;
mod path;
pub mod strategic;
mod typed;

pub use apply::{Applied, Write};
pub use fields::Set;
pub use metadata::{has_finalizers, meta_text, metadata};

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
