//! `horizontalpodautoscalers` of autoscaling.

use jiff::Timestamp;
use meta::{FieldError, Path, Quantity, names};
use serde_json::{Value, json};

use crate::check::{Errors, among, named, one_of_if_set};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, count, name};
use crate::value::{at, at_mut, default_to, int, items, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .category("all")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Reference"),
            Column::text("Targets"),
            Column::text("MinPods"),
            Column::text("MaxPods"),
            Column::text("Replicas"),
            Column::text("Age"),
        ])
        .generations()
        .hooks(Hooks { row, default, validate: check, validate_update: check_update, ..Hooks::NONE })
}

/// Metrics shown before the rest is counted.
const SHOWN: usize = 2;

pub(crate) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = format!("{}/{}", text(object, "spec.scaleTargetRef.kind"), text(object, "spec.scaleTargetRef.name"));
    let min = int(object, "spec.minReplicas").map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    vec![
        name(object),
        target.into(),
        metrics(object).into(),
        min.into(),
        count(object, "spec.maxReplicas"),
        count(object, "status.currentReplicas"),
        age(object, now),
    ]
}

fn metrics(object: &Value) -> String {
    let specs = items(object, "spec.metrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let current = items(object, "status.currentMetrics");
    let list: Vec<String> = specs
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(i, spec)| metric(spec, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    let shown = list.join(", ");
    if specs.len() > SHOWN { format!("{shown} + {} more...", specs.len() - SHOWN) } else { shown }
}

/// `current/target` of one metric; `status` is null when nothing was measured.
fn metric(spec: &Value, status: &Value) -> String {
    let (key, named) = match text(spec, "type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let source = at(spec, key).unwrap_or(&Value::Null);
    let now = at(status, key).and_then(|s| at(s, "current"));
    let quantity = |field: &str| match now.map(|c| text(c, field)) {
        None => "<unknown>".to_owned(),
        Some("") if field == "averageValue" && !named && key != "pods" => "<unknown>".to_owned(),
        Some("") => "0".to_owned(),
        Some(found) => found.to_owned(),
    };
    let percent = |value: Option<i64>, missing: &str| value.map_or_else(|| missing.to_owned(), |n| format!("{n}%"));
    let average = text(source, "target.averageValue");
    match (named, average) {
        (true, "") => {
            let current = percent(now.and_then(|c| int(c, "averageUtilization")), "<unknown>");
            let target = percent(int(source, "target.averageUtilization"), "<auto>");
            format!("{}: {current}/{target}", text(source, "name"))
        }
        (true, average) => format!("{}: {}/{average}", text(source, "name"), quantity("averageValue")),
        (false, average) if key == "pods" => format!("{}/{average}", quantity("averageValue")),
        (false, "") => format!("{}/{}", quantity("value"), text(source, "target.value")),
        (false, average) => format!("{}/{average} (avg)", quantity("averageValue")),
    }
}

/// Without metrics a target scales by CPU; a given behaviour is completed.
pub(crate) fn default(hpa: &mut Value) {
    if at(hpa, "spec").is_some() && items(hpa, "spec.metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": super::DEFAULT_CPU_PERCENT});
        set(hpa, "spec.metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    if let Some(Value::Object(behavior)) = at_mut(hpa, "spec.behavior") {
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]});
        let down = json!({"selectPolicy": "Max", "policies": [percent]});
        for (side, defaults) in [("scaleUp", up), ("scaleDown", down)] {
            default_to(behavior, side, json!({}));
            if let (Some(Value::Object(rules)), Value::Object(defaults)) = (behavior.get_mut(side), defaults) {
                defaults.into_iter().for_each(|(key, value)| default_to(rules, &key, value));
            }
        }
    }
}

const MAX_STABILIZATION: i64 = 3_600;
const MAX_PERIOD: i64 = 1_800;

/// Kinds of metrics with the field that holds each, in the order upstream looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn check(hpa: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(hpa, "spec").unwrap_or(&Value::Null);
    let (least, most) = (int(spec, "minReplicas"), int(spec, "maxReplicas").unwrap_or(0));
    if let Some(least) = least.filter(|n| *n < 0) {
        errors.push(FieldError::invalid(path.child("minReplicas"), least, "must be greater than or equal to 0"));
    }
    let wakes = |metric: &Value| matches!(text(metric, "type"), "Object" | "External");
    if least == Some(0) && !items(spec, "metrics").iter().any(wakes) {
        let message = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(path.child("metrics"), message));
    }
    if most == 0 {
        errors.push(FieldError::required(path.child("maxReplicas"), ""));
    } else if most < 0 {
        errors.push(FieldError::invalid(path.child("maxReplicas"), most, "must be greater than or equal to 1"));
    }
    if least.is_some_and(|least| most < least) {
        let message = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(path.child("maxReplicas"), most, message));
    }
    let target = at(spec, "scaleTargetRef").unwrap_or(&Value::Null);
    reference(&mut errors, path.child("scaleTargetRef"), target);
    if !text(target, "apiVersion").contains('/') && text(target, "kind") != "ReplicationController" {
        let (target_path, version) = (path.child("scaleTargetRef"), text(target, "apiVersion"));
        let message = "apiVersion must specify API group";
        errors.push(FieldError::invalid(target_path.child("apiVersion"), version, message));
    }
    let list = path.child("metrics");
    for (i, one) in items(spec, "metrics").iter().enumerate() {
        check_metric(&mut errors, list.index(i), one);
    }
    let behavior = path.child("behavior");
    for key in ["scaleUp", "scaleDown"] {
        if let Some(rules) = at(spec, "behavior").and_then(|b| at(b, key)) {
            check_rules(&mut errors, behavior.child(key), rules);
        }
    }
    errors
}

fn reference(errors: &mut Errors, path: Path, reference: &Value) {
    named(errors, &path, reference, "kind", names::path_segment);
    named(errors, &path, reference, "name", names::path_segment);
    let version = text(reference, "apiVersion");
    if version.matches('/').count() > 1 {
        let message = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(path.child("apiVersion"), version, message));
    }
}

fn check_rules(errors: &mut Errors, path: Path, rules: &Value) {
    let window = int(rules, "stabilizationWindowSeconds").unwrap_or(0);
    let window_path = path.child("stabilizationWindowSeconds");
    if window < 0 {
        errors.push(FieldError::invalid(window_path, window, "must be greater than or equal to zero"));
    } else if window > MAX_STABILIZATION {
        errors.push(FieldError::invalid(window_path, window, "must be less than or equal to 3600"));
    }
    one_of_if_set(errors, &path, rules, "selectPolicy", &["Disabled", "Max", "Min"]);
    let list = path.child("policies");
    if items(rules, "policies").is_empty() {
        errors.push(FieldError::required(list, "must specify at least one Policy"));
    }
    for (i, policy) in items(rules, "policies").iter().enumerate() {
        let path = list.index(i);
        among(errors, path.child("type"), text(policy, "type"), &["Percent", "Pods"]);
        for key in ["value", "periodSeconds"] {
            let number = int(policy, key).unwrap_or(0);
            if number <= 0 {
                errors.push(FieldError::invalid(path.child(key), number, "must be greater than zero"));
            } else if key == "periodSeconds" && number > MAX_PERIOD {
                errors.push(FieldError::invalid(path.child(key), number, "must be less than or equal to 1800"));
            }
        }
    }
}

fn check_metric(errors: &mut Errors, path: Path, metric: &Value) {
    let kind = text(metric, "type");
    let expected = SOURCES.iter().find(|(known, _)| *known == kind);
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric source type"));
    }
    if expected.is_none() {
        let mut kinds = SOURCES.map(|(kind, _)| kind);
        kinds.sort_unstable();
        errors.push(FieldError::not_supported(path.child("type"), kind, kinds));
    }
    let given: Vec<&str> = SOURCES.iter().map(|(_, key)| *key).filter(|key| at(metric, key).is_some()).collect();
    if let Some(key) = given.first() {
        source(errors, path.child(key), at(metric, key).unwrap_or(&Value::Null), key);
    }
    let expected = expected.map_or("", |(_, key)| key);
    if !expected.is_empty() && !given.contains(&expected) {
        let message = "must populate information for the given metric source";
        errors.push(FieldError::required(path.child(expected), message));
    }
    if given.len() != 1 {
        for key in given.iter().filter(|key| **key != expected) {
            errors.push(FieldError::forbidden(path.child(key), "must populate the given metric source only"));
        }
    }
}

fn source(errors: &mut Errors, path: Path, source: &Value, key: &str) {
    let target_path = path.child("target");
    let has = |what: &str| at(source, "target").is_some_and(|t| at(t, what).is_some());
    if key == "object" {
        reference(errors, path.child("describedObject"), at(source, "describedObject").unwrap_or(&Value::Null));
    }
    if key.to_lowercase().contains("resource") {
        if text(source, "name").is_empty() {
            errors.push(FieldError::required(path.child("name"), "must specify a resource name"));
        }
        if key == "containerResource" && text(source, "container").is_empty() {
            errors.push(FieldError::required(path.child("container"), "must specify a container"));
        }
    } else {
        let metric = path.child("metric");
        match text(source, "metric.name") {
            "" => errors.push(FieldError::required(metric.child("name"), "must specify a metric name")),
            name => crate::check::follows(errors, metric.child("name"), name, names::path_segment),
        }
    }
    check_target(errors, target_path, at(source, "target").unwrap_or(&Value::Null));
    let missing = match key {
        "object" if !has("value") && !has("averageValue") => {
            Some(("averageValue", "must set either a target value or averageValue"))
        }
        "external" if !has("value") && !has("averageValue") => {
            Some(("averageValue", "must set either a target value for metric or a per-pod target"))
        }
        "pods" if !has("averageValue") => Some(("averageValue", "must specify a positive target averageValue")),
        "resource" | "containerResource" if !has("averageUtilization") && !has("averageValue") => {
            Some(("averageUtilization", "must set either a target raw value or a target utilization"))
        }
        _ => None,
    };
    errors.extend(missing.map(|(field, message)| FieldError::required(target_path.child(field), message)));
    if key == "external" && has("value") && has("averageValue") {
        let message = "may not set both a target value for metric and a per-pod target";
        errors.push(FieldError::forbidden(target_path.child("value"), message));
    }
    if key.to_lowercase().contains("resource") && has("averageUtilization") && has("averageValue") {
        let message = "may not set both a target raw value and a target utilization";
        errors.push(FieldError::forbidden(target_path.child("averageValue"), message));
    }
}

fn check_target(errors: &mut Errors, path: Path, target: &Value) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let message = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(path.child("type"), kind, message));
    }
    for key in ["value", "averageValue"] {
        let amount = at(target, key).and_then(Value::as_str).and_then(|text| text.parse::<Quantity>().ok());
        if let Some(amount) = amount.filter(|amount| amount.sign() <= 0) {
            errors.push(FieldError::invalid(path.child(key), amount.to_string(), "must be positive"));
        }
    }
    if let Some(share) = int(target, "averageUtilization").filter(|share| *share < 1) {
        errors.push(FieldError::invalid(path.child("averageUtilization"), share, "must be greater than 0"));
    }
}

/// The version of a target that stays is not looked at again.
fn check_update(hpa: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(hpa);
    let target = |hpa| ["spec.scaleTargetRef.kind", "spec.scaleTargetRef.apiVersion"].map(|path| text(hpa, path));
    if target(hpa) == target(old) {
        errors.retain(|error| error.path != "spec.scaleTargetRef.apiVersion");
    }
    errors
}
