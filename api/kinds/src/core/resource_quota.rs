//! `resourcequotas`.

use jiff::Timestamp;
use meta::{FieldError, Path, Quantity};
use serde_json::Value;

use crate::check::Errors;
use crate::core::pod_spec::resources::{amount_of, resource_name};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{at, items, map, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ResourceQuota", "resourcequotas")
        .short(&["quota"])
        .status()
        .columns(vec![Column::name(), Column::text("Request"), Column::text("Limit"), Column::text("Age")])
        .hooks(Hooks {
            row,
            validate: check,
            validate_update: check_update,
            validate_status: check_status,
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = map(object, "status.used");
    for (resource, hard) in map(object, "status.hard").into_iter().flatten() {
        let used = used.and_then(|u| u.get(resource)).and_then(Value::as_str).unwrap_or("0");
        let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{resource}: {used}/{}", hard.as_str().unwrap_or("")));
    }
    vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
}

/// What of pods is counted beside their number.
pub(crate) const COMPUTE: [&str; 9] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

const COUNTED: [&str; 10] = [
    "requests.storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn standard(name: &str) -> bool {
    let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    COMPUTE.contains(&name) || COUNTED.contains(&name) || huge
}

fn check(quota: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(quota, "spec").unwrap_or(&Value::Null);
    counted(&mut errors, path.child("hard"), spec, "hard");
    scopes(&mut errors, path.child("scopes"), spec);
    selector(&mut errors, path.child("scopeSelector"), spec);
    errors
}

/// Amounts of what quotas count.
fn counted(errors: &mut Errors, path: Path, of: &Value, key: &str) {
    for (name, amount) in map(of, key).into_iter().flatten() {
        let entry = path.key(name);
        resource_name(errors, entry, name);
        if !name.contains('/') && !standard(name) {
            errors.push(FieldError::invalid(entry, name.as_str(), "must be a standard resource for quota"));
        }
        if let Some(amount) = amount.as_str().and_then(|text| text.parse::<Quantity>().ok()) {
            amount_of(errors, entry, name, amount);
        }
    }
}

fn check_status(quota: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("status");
    let status = at(quota, "status").unwrap_or(&Value::Null);
    for key in ["hard", "used"] {
        counted(&mut errors, path.child(key), status, key);
    }
    errors
}

/// Whether what is counted has anything to do with the scope.
fn fits(scope: &str, name: &str) -> bool {
    let compute = COMPUTE.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => !SCOPES.contains(&scope) || name == "pods" || compute,
    }
}

fn scopes(errors: &mut Errors, path: Path, spec: &Value) {
    let scopes: Vec<&str> = items(spec, "scopes").iter().filter_map(Value::as_str).collect();
    let mut wrong = |message: &str| {
        let all = Value::from(scopes.clone());
        errors.push(FieldError::invalid(path, all, message));
    };
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            wrong("unsupported scope");
        }
        let names = crate::value::map(spec, "hard").into_iter().flatten().map(|(name, _)| name);
        names.filter(|n| standard(n) && !fits(scope, n)).for_each(|_| wrong("unsupported scope applied to resource"));
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            wrong("conflicting scopes");
        }
    }
}

fn selector(errors: &mut Errors, path: Path, spec: &Value) {
    let path = path.child("matchExpressions");
    for expression in items(spec, "scopeSelector.matchExpressions") {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(path.child("scopeName"), scope, "unsupported scope"));
        }
        let values = items(expression, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let message = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(path.child("values"), message));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(path.child("values"), Value::from(values), message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
    }
}

fn check_update(quota: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(quota);
    let scopes = |quota| {
        let mut scopes = items(quota, "spec.scopes").iter().filter_map(Value::as_str).collect::<Vec<_>>();
        scopes.sort_unstable();
        scopes
    };
    if scopes(quota) != scopes(old) {
        let value = Value::from(items(quota, "spec.scopes"));
        errors.push(FieldError::invalid("spec.scopes", value, crate::check::IMMUTABLE));
    }
    errors
}
