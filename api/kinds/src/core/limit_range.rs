//! `limitranges`.

use meta::{FieldError, Path, Quantity, names};
use serde_json::Value;

use crate::check::{Errors, follows};
use crate::core::pod_spec::resources::{Of, name_of, resource_name};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::value::{ensure_map, items, items_mut, map, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "LimitRange", "limitranges")
        .short(&["limits"])
        .columns(vec![Column::name(), Column::date("Created At")])
        .created_by_update()
        .hooks(Hooks {
            row: crate::print::name_and_creation,
            default,
            validate: check,
            validate_update: |o, _| check(o),
            ..Hooks::NONE
        })
}

/// Of a container limit, what is missing follows: limits from maxima, requests from limits, then from minima.
fn default(range: &mut Value) {
    for item in items_mut(range, "spec.limits").filter(|i| text(i, "type") == "Container") {
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let Some(known) = map(item, from).cloned() else { continue };
            let list = ensure_map(item, to);
            for (name, amount) in known {
                list.entry(name).or_insert(amount);
            }
        }
    }
}

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn check(range: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let root = Path::root("spec");
    let list = root.child("limits");
    let mut seen: Vec<&str> = Vec::new();
    for (i, limit) in items(range, "spec.limits").iter().enumerate() {
        let (path, kind) = (list.index(i), text(limit, "type"));
        check_type(&mut errors, path.child("type"), kind);
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
        seen.push(kind);
        check_limit(&mut errors, path, limit, kind);
    }
    errors
}

fn check_type(errors: &mut Errors, path: Path, kind: &str) {
    let before = errors.len();
    follows(errors, path, kind, names::qualified_name);
    let known = kind.contains('/') || ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind);
    if errors.len() == before && !known {
        errors.push(FieldError::invalid(path, kind, "must be a standard limit type or fully qualified"));
    }
}

fn check_limit(errors: &mut Errors, path: Path, limit: &Value, kind: &str) {
    let mut names: Vec<&String> = Vec::new();
    for key in LISTS {
        let entries = map(limit, key).filter(|m| !m.is_empty());
        if kind == "Pod" && key.starts_with("default") {
            if entries.is_some() {
                let message = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(path.child(key), message));
            }
            continue;
        }
        for (name, _) in entries.into_iter().flatten() {
            let entry = path.child(key);
            if matches!(kind, "Pod" | "Container") {
                name_of(errors, entry.key(name), name, Of::Container);
            } else {
                resource_name(errors, entry.key(name), name);
            }
            names.push(name);
        }
    }
    let storage = |key| map(limit, key).is_some_and(|m| m.contains_key("storage"));
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let message = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(path.child("limits"), message));
    }
    names.sort_unstable();
    names.dedup();
    for name in names {
        amounts(errors, path, limit, name, kind == "Pod");
    }
}

/// Minima, requests, limits and maxima of one resource are in this order.
fn amounts(errors: &mut Errors, path: Path, limit: &Value, name: &str, pod: bool) {
    let amount = |key: &str| {
        let text = map(limit, key).and_then(|m| m.get(name)).and_then(Value::as_str);
        text.and_then(|text| text.parse::<Quantity>().ok()).filter(|_| !(pod && key.starts_with("default")))
    };
    let order = [
        ("min", "min value", "max", "max value", "min", "min"),
        ("min", "min value", "defaultRequest", "default request value", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "default request value", "max", "max value", "defaultRequest", "defaultRequest"),
        (
            "defaultRequest",
            "default request value",
            "default",
            "default limit value",
            "defaultRequest",
            "defaultRequest",
        ),
        ("min", "min value", "default", "default value", "default", "min"),
        ("default", "default value", "max", "max value", "default", "max"),
    ];
    for (low, low_name, high, high_name, at, shown) in order {
        if let (Some(small), Some(big)) = (amount(low), amount(high))
            && small > big
        {
            let message = format!("{low_name} {small} is greater than {high_name} {big}");
            let value = amount(shown).map_or_else(String::new, |a| a.to_string());
            errors.push(FieldError::invalid(path.child(at).key(name), value, message));
        }
    }
    if let Some(ratio) = amount("maxLimitRequestRatio").filter(|r| *r < Quantity::new(1)) {
        let message = format!("ratio {ratio} is less than 1");
        errors.push(FieldError::invalid(path.child("maxLimitRequestRatio").key(name), ratio.to_string(), message));
    }
}
