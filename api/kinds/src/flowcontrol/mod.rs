//! Kinds of the `flowcontrol` group, and the check of the conditions that both have.

use meta::{FieldError, Path};
use serde_json::Value;

use crate::value::{items, text};

mod check_flow;
pub(crate) mod flow_schema;
pub(crate) mod priority_level_configuration;

/// Conditions of one type each.
fn conditions(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::root("status");
    let list = status.child("conditions");
    let conditions = items(object, "status.conditions");
    for (i, condition) in conditions.iter().enumerate() {
        let (path, kind) = (list.index(i), text(condition, "type"));
        if conditions[..i].iter().any(|c| text(c, "type") == kind) {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(path.child("type"), ""));
        }
    }
    errors
}
