//! Environment variables and what they may be taken from.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows, named, present};
use crate::value::{at, text};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What files of a downward volume may show.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Every field a pod shows by its path.
const KNOWN_FIELDS: [&str; 11] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
];

/// Variables of a container.
pub(super) fn variables(errors: &mut Errors, path: Path, variables: &[Value]) {
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        named(errors, &path, variable, "name", names::env_var_name);
        if let Some(from) = at(variable, "valueFrom") {
            value_from(errors, path.child("valueFrom"), from, text(variable, "value"));
        }
    }
}

fn value_from(errors: &mut Errors, path: Path, from: &Value, value: &str) {
    let mut sources = 0;
    let mut source = |key: &str| at(from, key).inspect(|_| sources += 1);
    if let Some(field) = source("fieldRef") {
        field_ref(errors, path.child("fieldRef"), field, &ENV_FIELDS);
    }
    if let Some(resource) = source("resourceFieldRef") {
        resource_ref(errors, path.child("resourceFieldRef"), resource, false);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = source(key) {
            let path = path.child(key);
            follows(errors, path.child("name"), text(reference, "name"), names::dns1123_subdomain);
            named(errors, &path, reference, "key", names::config_map_key);
        }
    }
    if let Some(file) = source("fileKeyRef") {
        let path = path.child("fileKeyRef");
        named(errors, &path, file, "key", names::env_var_name);
        named(errors, &path, file, "volumeName", names::dns1123_label);
        if present(errors, &path, file, "path") {
            crate::check::no_backsteps(errors, path.child("path"), text(file, "path"));
        }
    }
    if sources == 0 {
        let message =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(FieldError::invalid(path, "", message));
    } else if !value.is_empty() {
        errors.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time"));
    }
}

/// A field of the pod, out of those that `allowed` names.
pub(super) fn field_ref(errors: &mut Errors, path: Path, field: &Value, allowed: &[&str]) {
    if !present(errors, &path, field, "apiVersion") || !present(errors, &path, field, "fieldPath") {
        return;
    }
    let whole = text(field, "fieldPath");
    if let Some((map, key)) = whole.strip_suffix("']").and_then(|w| w.split_once("['")) {
        match map {
            "metadata.annotations" => follows(errors, path, &key.to_lowercase(), names::qualified_name),
            "metadata.labels" => follows(errors, path, key, names::qualified_name),
            _ => {
                let message = format!("error converting fieldPath: field label does not support subscript: {whole}");
                errors.push(FieldError::invalid(path.child("fieldPath"), whole, message));
            }
        }
    } else if !known(whole) {
        unknown(errors, path, whole);
    } else if !allowed.contains(&whole) {
        errors.push(FieldError::not_supported(path.child("fieldPath"), whole, allowed));
    }
}

fn known(field: &str) -> bool {
    KNOWN_FIELDS.contains(&field) || ["status.podIP", "status.podIPs", "status.hostIPs"].contains(&field)
}

fn unknown(errors: &mut Errors, path: Path, field: &str) {
    let message = format!("error converting fieldPath: field label not supported: {field}");
    errors.push(FieldError::invalid(path.child("fieldPath"), field, message));
}

/// An amount of resources of a container.
pub(super) fn resource_ref(errors: &mut Errors, path: Path, reference: &Value, in_volume: bool) {
    let resource = text(reference, "resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
    if in_volume && text(reference, "containerName").is_empty() {
        errors.push(FieldError::required(path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.push(FieldError::not_supported(path.child("resource"), resource, RESOURCES));
    }
    divisor(errors, path, resource, text(reference, "divisor"), huge);
}

fn divisor(errors: &mut Errors, path: Path, resource: &str, divisor: &str, huge: bool) {
    const SIZES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    if matches!(divisor, "" | "0") {
        return;
    }
    let (allowed, what) = match resource {
        "limits.cpu" | "requests.cpu" => ("1m, 1", "cpu"),
        "limits.memory" | "requests.memory" => (SIZES, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (SIZES, "local ephemeral storage"),
        _ if huge => (SIZES, "hugepages"),
        _ => return,
    };
    if !allowed.split(", ").any(|value| value == divisor) {
        let listed = allowed.replace("1m, 1", "1m and 1");
        let listed = if what == "cpu" { listed } else { allowed.to_owned() };
        let message = format!("only divisor's values {listed} are supported with the {what} resource");
        errors.push(FieldError::invalid(path.child("divisor"), resource, message));
    }
}

/// Whole maps as variables.
pub(super) fn sources(errors: &mut Errors, path: Path, sources: &[Value]) {
    for (i, source) in sources.iter().enumerate() {
        let source_path = path.index(i);
        crate::check::named_if_set(errors, &source_path, source, "prefix", names::env_var_name);
        let mut found = 0;
        for key in ["configMapRef", "secretRef"] {
            if let Some(reference) = at(source, key) {
                found += 1;
                named(errors, &source_path.child(key), reference, "name", |name| {
                    names::dns1123_subdomain(&names::mask_trailing_dash(name))
                });
            }
        }
        if found == 0 {
            errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
        } else if found > 1 {
            errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time"));
        }
    }
}
