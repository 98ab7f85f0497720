//! Conditions as most kinds have them (`meta/v1` Condition): one of each type, with a status, a reason and a time.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows};
use crate::value::{at, int, text};

const REASON_LIMIT: usize = 1024;
const MESSAGE_LIMIT: usize = 32 * 1024;

/// What is wrong with a list of conditions at `path`.
pub(crate) fn validate(errors: &mut Errors, path: Path, conditions: &[Value]) {
    for (i, condition) in conditions.iter().enumerate() {
        let (path, kind) = (path.index(i), text(condition, "type"));
        if kind.is_empty() {
            errors.push(FieldError::required(path.child("type"), "must be set"));
        } else {
            follows(errors, path.child("type"), kind, names::qualified_name);
            if conditions[..i].iter().any(|c| text(c, "type") == kind) {
                errors.push(FieldError::duplicate(path.child("type"), kind));
            }
        }
        crate::check::among(errors, path.child("status"), text(condition, "status"), &["False", "True", "Unknown"]);
        if let Some(generation) = int(condition, "observedGeneration").filter(|g| *g < 0) {
            let message = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(path.child("observedGeneration"), generation, message));
        }
        if at(condition, "lastTransitionTime").is_none() {
            errors.push(FieldError::required(path.child("lastTransitionTime"), "must be set"));
        }
        reason(errors, path.child("reason"), text(condition, "reason"));
        if text(condition, "message").len() > MESSAGE_LIMIT {
            errors.push(FieldError::too_long(path.child("message"), MESSAGE_LIMIT as i64));
        }
    }
}

fn reason(errors: &mut Errors, path: Path, reason: &str) {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if reason.is_empty() {
        errors.push(FieldError::required(path, "must be set"));
    } else if reason.len() > REASON_LIMIT {
        errors.push(FieldError::too_long(path, REASON_LIMIT as i64));
    } else if !(reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.ends_with(letter)
        && reason.chars().all(|c| letter(c) || matches!(c, ',' | ':')))
    {
        let message = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
        errors.push(FieldError::invalid(path, reason, message));
    }
}
