//! `metadata.managedFields`: who wrote which field, kept on every write.

use meta::Status;
use serde_json::Value;

use super::Served;
use super::write::metadata;
use crate::http::call::Call;

/// Replaces the managed fields.
pub fn set(object: &mut Value, fields: Value) {
    metadata(object).insert("managedFields".to_owned(), fields);
}

/// Records a create or update. `old` is the object before.
pub fn on_write(
    _call: &Call,
    _served: &Served,
    _old: Option<&Value>,
    _new: &mut Value,
    _manager: &str,
    _subresource: &str,
) -> Result<(), Status> {
    Ok(())
}
