//! What the controllers of pods have in common when they are validated: counts or percentages of pods, and selectors
//! that must match the template.

use meta::{FieldError, Path, Selector, names};
use serde_json::{Map, Value};

use crate::check::{Errors, NEGATIVE, follows, label_selector, selects, selects_everything};
use crate::value::{at, map};

/// A count or a percentage of pods, not negative.
pub(crate) fn int_or_percent(errors: &mut Errors, path: Path, value: &Value) {
    match value {
        Value::String(text) => follows(errors, path, text, names::percent),
        other => {
            if let Some(count) = other.as_i64().filter(|n| *n < 0) {
                errors.push(FieldError::invalid(path, count, NEGATIVE));
            }
        }
    }
}

/// A percentage is of pods that there are.
pub(crate) fn not_more_than_all(errors: &mut Errors, path: Path, value: &Value) {
    if value.is_string() && amount(Some(value)) > 100 {
        errors.push(FieldError::invalid(path, value.clone(), "must not be greater than 100%"));
    }
}

/// The number of a count or a percentage, whichever it is.
pub(crate) fn amount(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        other => other.and_then(Value::as_i64).unwrap_or(0),
    }
}

/// The selector of a controller must be there and select something.
pub(crate) fn selector(errors: &mut Errors, path: Path, spec: &Value, owner: &str) {
    let path = path.child("selector");
    let Some(selector) = at(spec, "selector") else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    label_selector(errors, path, Some(selector));
    selects_something(errors, path, selector, owner);
}

/// A selector of everything is a mistake.
pub(crate) fn selects_something(errors: &mut Errors, path: Path, selector: &Value, owner: &str) {
    if selects_everything(selector) {
        let message = format!("empty selector is invalid for {owner}");
        errors.push(FieldError::invalid(path, selector.clone(), message));
    }
}

/// The selector must select the pods of the template, labels of which are at `path`. Answers whether it can be read.
pub(crate) fn matches_template(errors: &mut Errors, path: Path, spec: &Value) -> bool {
    let selector = at(spec, "selector");
    if Selector::from_object(selector).is_err() {
        return false;
    }
    let template = at(spec, "template").unwrap_or(&Value::Null);
    if !selects(selector, at(template, "metadata.labels")) {
        let labels: Option<Map<String, Value>> = map(template, "metadata.labels").cloned();
        let value = labels.map_or(Value::Null, Value::Object);
        let metadata = path.child("metadata");
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(metadata.child("labels"), value, message));
    }
    true
}

/// Selector and template of controllers that keep replicas running.
pub(crate) fn replicated(errors: &mut Errors, path: Path, spec: &Value) {
    selector(errors, path, spec, "deployment");
    let template_path = path.child("template");
    if !matches_template(errors, template_path, spec) {
        let value = at(spec, "selector").cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(path.child("selector"), value, "invalid label selector"));
        return;
    }
    let template = at(spec, "template");
    crate::core::pod_spec::template(errors, template_path, template);
    crate::core::replicas::always_running(errors, template_path, template.unwrap_or(&Value::Null), "ReplicaSet");
}

/// A counter in a status only goes up.
pub(crate) fn not_decremented(errors: &mut Errors, path: Path, new: Option<i64>, old: Option<i64>) {
    if old.is_some_and(|old| new.unwrap_or(0) < old) {
        errors.push(FieldError::invalid(path, new.unwrap_or(0), "cannot be decremented"));
    }
}
