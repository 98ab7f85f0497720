//! Affinity to nodes and pods.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows, label_name, label_selector};
use crate::value::{at, int, items, text};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Everything wrong with the affinity of a pod spec.
pub(crate) fn validate(errors: &mut Errors, path: Path, affinity: Option<&Value>) {
    let Some(affinity) = affinity else { return };
    if let Some(nodes) = at(affinity, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(selector) = at(nodes, REQUIRED) {
            node_selector(errors, path.child(REQUIRED), selector);
        }
        let list = path.child(PREFERRED);
        for (i, term) in items(nodes, PREFERRED).iter().enumerate() {
            let path = list.index(i);
            weight(errors, path, term);
            let preference = at(term, "preference").unwrap_or(&Value::Null);
            node_term(errors, path.child("preference"), preference, false);
        }
    }
    for side in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = at(affinity, side) else { continue };
        let path = path.child(side);
        let list = path.child(REQUIRED);
        for (i, term) in items(pods, REQUIRED).iter().enumerate() {
            pod_term(errors, list.index(i), term);
        }
        let list = path.child(PREFERRED);
        for (i, term) in items(pods, PREFERRED).iter().enumerate() {
            let path = list.index(i);
            weight(errors, path, term);
            pod_term(errors, path.child("podAffinityTerm"), at(term, "podAffinityTerm").unwrap_or(&Value::Null));
        }
    }
}

fn weight(errors: &mut Errors, path: Path, term: &Value) {
    let weight = int(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// A node selector: terms of which one must hold.
pub(crate) fn node_selector(errors: &mut Errors, path: Path, selector: &Value) {
    let list = path.child("nodeSelectorTerms");
    let terms = items(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(list, "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errors, list.index(i), term, true);
    }
}

fn node_term(errors: &mut Errors, path: Path, term: &Value, check_values: bool) {
    let list = path.child("matchExpressions");
    for (i, requirement) in items(term, "matchExpressions").iter().enumerate() {
        node_requirement(errors, list.index(i), requirement, check_values);
    }
    let list = path.child("matchFields");
    for (i, requirement) in items(term, "matchFields").iter().enumerate() {
        node_field(errors, list.index(i), requirement);
    }
}

fn node_requirement(errors: &mut Errors, path: Path, requirement: &Value, check_values: bool) {
    let values = items(requirement, "values");
    let values_path = path.child("values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            let message = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(values_path, message));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(values_path, message));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let message = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(values_path, message));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
    }
    label_name(errors, path.child("key"), text(requirement, "key"));
    for (i, value) in values.iter().filter_map(Value::as_str).enumerate().filter(|_| check_values) {
        follows(errors, values_path.index(i), value, names::label_value);
    }
}

fn node_field(errors: &mut Errors, path: Path, requirement: &Value) {
    let values = items(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.len() != 1 => {
            let message = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(path.child("values"), message));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
    }
    match text(requirement, "key") {
        "metadata.name" => {
            let list = path.child("values");
            for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
                follows(errors, list.index(i), value, names::dns1123_subdomain);
            }
        }
        other => errors.push(FieldError::invalid(path.child("key"), other, "not a valid field selector key")),
    }
}

fn pod_term(errors: &mut Errors, path: Path, term: &Value) {
    label_selector(errors, path.child("labelSelector"), at(term, "labelSelector"));
    label_selector(errors, path.child("namespaceSelector"), at(term, "namespaceSelector"));
    for name in items(term, "namespaces").iter().filter_map(Value::as_str) {
        follows(errors, path.child("namespace"), name, names::dns1123_label);
    }
    label_keys(errors, path, term);
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    }
    label_name(errors, path.child("topologyKey"), key);
}

/// Label keys need a selector to add to, are label names, and do not stand in both lists.
pub(super) fn label_keys(errors: &mut Errors, path: Path, term: &Value) {
    const LISTS: [&str; 2] = ["matchLabelKeys", "mismatchLabelKeys"];
    for list in LISTS {
        let keys = items(term, list);
        let list_path = path.child(list);
        if !keys.is_empty() && at(term, "labelSelector").is_none() {
            errors.push(FieldError::forbidden(list_path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            label_name(errors, list_path.index(i), key);
        }
    }
    let mismatch = items(term, LISTS[1]);
    let list_path = path.child(LISTS[0]);
    for (i, key) in items(term, LISTS[0]).iter().enumerate().filter(|(_, key)| mismatch.contains(key)) {
        let message = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(list_path.index(i), key.clone(), message));
    }
}
