//! The small checks that validation is made of. Each pushes what is wrong, in upstream's words.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::value::{at, int, items, map, text};

/// What is wrong with an object so far.
pub(crate) type Errors = Vec<FieldError>;

/// A rule for a text: why it is broken, each reason once.
pub(crate) type Rule = fn(&str) -> Vec<String>;

/// Pushes each way in which `value` breaks `rule`.
pub(crate) fn follows(errors: &mut Errors, path: Path, value: &str, rule: Rule) {
    errors.extend(rule(value).into_iter().map(|message| FieldError::invalid(path, value, message)));
}

/// The text at `key` must be there.
pub(crate) fn present(errors: &mut Errors, path: &Path, object: &Value, key: &str) -> bool {
    let found = !text(object, key).is_empty();
    if !found {
        errors.push(FieldError::required(path.child(key), ""));
    }
    found
}

/// The text at `key` must be there and follow `rule`.
pub(crate) fn named(errors: &mut Errors, path: &Path, object: &Value, key: &str, rule: Rule) {
    if present(errors, path, object, key) {
        follows(errors, path.child(key), text(object, key), rule);
    }
}

/// The text at `key`, if there, must follow `rule`.
pub(crate) fn named_if_set(errors: &mut Errors, path: &Path, object: &Value, key: &str, rule: Rule) {
    if !text(object, key).is_empty() {
        follows(errors, path.child(key), text(object, key), rule);
    }
}

/// The text at `key` must be there and one of `allowed`, listed as given.
pub(crate) fn one_of(errors: &mut Errors, path: &Path, object: &Value, key: &str, allowed: &[&str]) {
    if present(errors, path, object, key) {
        among(errors, path.child(key), text(object, key), allowed);
    }
}

/// The text at `key`, if there, must be one of `allowed`.
pub(crate) fn one_of_if_set(errors: &mut Errors, path: &Path, object: &Value, key: &str, allowed: &[&str]) {
    if let Some(Value::String(value)) = at(object, key) {
        among(errors, path.child(key), value, allowed);
    }
}

/// `value` must be one of `allowed`.
pub(crate) fn among(errors: &mut Errors, path: Path, value: &str, allowed: &[&str]) {
    if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
}

/// The number at `key`, if there, must not be negative.
pub(crate) fn not_negative(errors: &mut Errors, path: &Path, object: &Value, key: &str) {
    if let Some(value) = int(object, key).filter(|v| *v < 0) {
        errors.push(FieldError::invalid(path.child(key), value, NEGATIVE));
    }
}

/// What upstream says of a negative number.
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";

/// What upstream says of a field that may not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// The number at `key`, if there, must lie in the range.
pub(crate) fn in_range(errors: &mut Errors, path: &Path, object: &Value, key: &str, low: i64, high: i64) {
    if let Some(value) = int(object, key).filter(|v| *v < low || *v > high) {
        errors.push(FieldError::invalid(path.child(key), value, names::range(low, high)));
    }
}

/// The values at `key` of both objects must be the same.
pub(crate) fn immutable(errors: &mut Errors, path: Path, new: Option<&Value>, old: Option<&Value>) {
    if !crate::value::same(new, old) {
        errors.push(FieldError::invalid(path, new.cloned().unwrap_or(Value::Null), IMMUTABLE));
    }
}

/// A port number or the name of one.
pub(crate) fn port(errors: &mut Errors, path: Path, port: Option<&Value>) {
    match port {
        Some(Value::String(name)) => follows(errors, path, name, names::port_name),
        other => {
            let number = other.and_then(Value::as_i64).unwrap_or(0);
            errors.extend(names::port_number(number).into_iter().map(|m| FieldError::invalid(path, number, m)));
        }
    }
}

/// A relative path without `..`.
pub(crate) fn relative_path(errors: &mut Errors, path: Path, value: &str) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(errors, path, value);
}

/// A path without `..` in it.
pub(crate) fn no_backsteps(errors: &mut Errors, path: Path, value: &str) {
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

/// A relative path that does not look like the server's own files in volumes.
pub(crate) fn volume_path(errors: &mut Errors, path: Path, value: &str) {
    relative_path(errors, path, value);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}

/// Labels of a selector or a template: keys and values.
pub(crate) fn labels(errors: &mut Errors, path: Path, object: &Value, key: &str) {
    crate::metadata::labels(map(object, key), &path, errors);
}

/// The name of a label. Upstream reports it at the key's path.
pub(crate) fn label_name(errors: &mut Errors, path: Path, name: &str) {
    follows(errors, path, name, names::qualified_name);
}

/// A label selector, if there is one.
pub(crate) fn label_selector(errors: &mut Errors, path: Path, selector: Option<&Value>) {
    let Some(selector) = selector.filter(|s| !s.is_null()) else { return };
    labels(errors, path.child("matchLabels"), selector, "matchLabels");
    let list = path.child("matchExpressions");
    for (i, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let path = list.index(i);
        let values = items(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let message = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(path.child("values"), message));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(path.child("values"), message));
            }
            "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
        label_name(errors, path.child("key"), text(expression, "key"));
        let list = path.child("values");
        for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
            follows(errors, list.index(i), value, names::label_value);
        }
    }
}

/// Whether a label selector selects everything, having nothing in it.
pub(crate) fn selects_everything(selector: &Value) -> bool {
    map(selector, "matchLabels").is_none_or(|m| m.is_empty()) && items(selector, "matchExpressions").is_empty()
}

/// Whether `labels` match a label selector; a selector that is none matches nothing.
pub(crate) fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let empty = serde_json::Map::new();
    let labels = labels.and_then(Value::as_object).unwrap_or(&empty);
    meta::Selector::from_object(selector).is_ok_and(|selector| selector.matches(labels))
}

/// A name with the domain of whoever it belongs to before it.
pub(crate) fn domain_prefixed_path(errors: &mut Errors, path: Path, value: &str) {
    let parts = value.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty());
    match parts {
        _ if value.is_empty() => errors.push(FieldError::required(path, "")),
        None => {
            let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(path, value, message));
        }
        Some((host, rest)) => {
            follows(errors, path, host, names::dns1123_subdomain);
            let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
            if !rest.chars().all(plain) {
                let message = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                errors.push(FieldError::invalid(path, rest, message));
            }
        }
    }
}

/// What is wrong with a whole structure, which the text does not show.
pub(crate) fn without_value(path: impl std::fmt::Display, message: impl Into<String>) -> FieldError {
    FieldError { value: None, ..FieldError::invalid(path, Value::Null, message) }
}

/// As `immutable` for fields whose rule upstream declares in the schema: those do not show the value.
pub(crate) fn frozen(errors: &mut Errors, path: Path, new: Option<&Value>, old: Option<&Value>) {
    if !crate::value::same(new, old) {
        errors.push(FieldError::invalid(path, Value::Null, IMMUTABLE));
    }
}
