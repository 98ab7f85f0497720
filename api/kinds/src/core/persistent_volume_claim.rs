//! `persistentvolumeclaims`.

use jiff::Timestamp;
use meta::{FieldError, Path, Quantity, names};
use serde_json::Value;

use crate::check::{Errors, among, follows, immutable, label_selector, present};
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{access_modes, age, name, storage_class, text_or};
use crate::value::{at, items, map, remove, same, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Status"),
            Column::text("Volume"),
            Column::text("Capacity"),
            Column::text("Access Modes"),
            Column::text("StorageClass"),
            Column::text("VolumeAttributesClass"),
            Column::text("Age"),
            Column::text("VolumeMode").wide(),
        ])
        .hooks(Hooks {
            row,
            prepare_create: |o, _| data_sources(o, false),
            prepare_update,
            validate,
            validate_update,
            validate_status,
            warnings,
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let deleting = at(object, "metadata.deletionTimestamp").is_some();
    let bound = !text(object, "spec.volumeName").is_empty();
    let (capacity, modes) = match bound {
        true => (text_or(object, "status.capacity.storage", "0"), access_modes(object, "status.accessModes")),
        false => ("".into(), String::new()),
    };
    vec![
        name(object),
        if deleting { "Terminating" } else { text(object, "status.phase") }.into(),
        text(object, "spec.volumeName").into(),
        capacity,
        modes.into(),
        storage_class(object).into(),
        text_or(object, "spec.volumeAttributesClassName", "<unset>"),
        age(object, now),
        text_or(object, "spec.volumeMode", "<unset>"),
    ]
}

fn prepare_update(claim: &mut Value, old: &Value, _context: &Context) {
    let in_use = at(old, "spec.dataSource").is_some() || at(old, "spec.dataSourceRef").is_some();
    data_sources(claim, in_use);
}

/// Both fields for the source of data say the same. Only claims and snapshots may stand in the old one.
fn data_sources(claim: &mut Value, in_use: bool) {
    const OLD: &str = "spec.dataSource";
    const NEW: &str = "spec.dataSourceRef";
    let known = |source: &Value| match (text(source, "kind"), text(source, "apiGroup")) {
        ("PersistentVolumeClaim", "") => true,
        ("VolumeSnapshot", group) => group == "snapshot.storage.k8s.io",
        _ => false,
    };
    let refused = at(claim, OLD).is_some_and(|source| !known(source));
    if refused && !in_use && at(claim, NEW).is_none() {
        remove(claim, OLD);
    }
    match (at(claim, OLD).cloned(), at(claim, NEW).cloned()) {
        (Some(source), None) => set(claim, NEW, source),
        (None, Some(mut source)) if text(&source, "namespace").is_empty() => {
            remove(&mut source, "namespace");
            set(claim, OLD, source);
        }
        _ => {}
    }
}

/// Ways a volume may be mounted.
pub(crate) const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn validate(claim: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_spec(&mut errors, Path::root("spec"), at(claim, "spec").unwrap_or(&Value::Null));
    errors
}

/// Access modes of claims and volumes.
pub(crate) fn access_modes_valid(errors: &mut Errors, path: Path, spec: &Value) {
    let path = path.child("accessModes");
    let modes: Vec<&str> = items(spec, "accessModes").iter().filter_map(Value::as_str).collect();
    for mode in &modes {
        among(errors, path, mode, &ACCESS_MODES);
    }
    let alone = |mode: &&&str| **mode == "ReadWriteOncePod";
    if modes.iter().any(|m| alone(&m)) && modes.iter().any(|m| !alone(&m) && ACCESS_MODES.contains(m)) {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// The spec of a claim, also inside pods and stateful sets.
pub(crate) fn validate_spec(errors: &mut Errors, path: Path, spec: &Value) {
    if items(spec, "accessModes").is_empty() {
        errors.push(FieldError::required(path.child("accessModes"), "at least 1 access mode is required"));
    }
    label_selector(errors, path.child("selector"), at(spec, "selector"));
    access_modes_valid(errors, path, spec);
    let resources = path.child("resources");
    match text(spec, "resources.requests.storage").parse::<Quantity>() {
        Ok(amount) if amount.sign() <= 0 => {
            let message = "must be greater than zero";
            errors.push(FieldError::invalid(resources.key("storage"), amount.to_string(), message));
        }
        Ok(_) => {}
        Err(_) => errors.push(FieldError::required(resources.key("storage"), "")),
    }
    for key in ["storageClassName", "volumeAttributesClassName"] {
        crate::check::named_if_set(errors, &path, spec, key, names::dns1123_subdomain);
    }
    crate::check::one_of_if_set(errors, &path, spec, "volumeMode", &["Block", "Filesystem"]);
    for key in ["dataSource", "dataSourceRef"] {
        if let Some(source) = at(spec, key) {
            data_source(errors, path.child(key), source);
        }
    }
    let (old, new) = (at(spec, "dataSource"), at(spec, "dataSourceRef"));
    if let (Some(old), Some(new)) = (old, new) {
        let equal = ["apiGroup", "kind", "name"].iter().all(|key| text(old, key) == text(new, key));
        if !text(new, "namespace").is_empty() {
            let message = "may not be specified when dataSourceRef.namespace is specified";
            errors.push(FieldError::invalid(path, path.child("dataSource").to_string(), message));
        } else if !equal {
            errors.push(FieldError::invalid(path, path.child("dataSource").to_string(), "must match dataSourceRef"));
        }
    }
}

fn data_source(errors: &mut Errors, path: Path, source: &Value) {
    present(errors, &path, source, "name");
    present(errors, &path, source, "kind");
    let group = text(source, "apiGroup");
    if group.is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
        let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, text(source, "kind"), message));
    }
    if !group.is_empty() {
        follows(errors, path.child("apiGroup"), group, names::dns1123_subdomain);
    }
}

fn validate_update(claim: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(claim);
    let mut munged = at(claim, "spec").cloned().unwrap_or_default();
    let was = at(old, "spec").cloned().unwrap_or_default();
    let bound = text(claim, "status.phase") == "Bound";
    let mut free = Vec::new();
    if text(old, "spec.volumeName").is_empty() {
        free.push("volumeName");
    }
    if bound {
        free.extend(["resources.requests.storage", "volumeAttributesClassName"]);
    }
    for path in free {
        match at(&was, path) {
            Some(value) => set(&mut munged, path, value.clone()),
            None => drop(remove(&mut munged, path)),
        }
    }
    if !same(Some(&munged), Some(&was)) {
        let message = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n";
        errors.push(FieldError::forbidden("spec", message));
    }
    let size = |o: &Value, path: &str| text(o, path).parse::<Quantity>().unwrap_or_default();
    const REQUEST: &str = "spec.resources.requests.storage";
    let (new, before, now) = (size(claim, REQUEST), size(old, REQUEST), size(old, "status.capacity.storage"));
    if new < before && new <= now {
        errors.push(FieldError::forbidden(REQUEST, "field can not be less than status.capacity"));
    }
    immutable(&mut errors, Path::root("volumeMode"), at(claim, "spec.volumeMode"), at(old, "spec.volumeMode"));
    errors
}

/// How far a resize has come.
const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

fn validate_status(claim: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::root("status");
    let amounts = |errors: &mut Errors, field: &'static str, names: bool| {
        for (key, amount) in map(claim, &format!("status.{field}")).into_iter().flatten() {
            let amount = amount.as_str().unwrap_or_default();
            if amount.parse::<Quantity>().is_ok_and(|amount| amount.sign() < 0) {
                let message = "must be a valid resource quantity";
                errors.push(FieldError::invalid(status.child(field).key(key), raw(amount), message));
            }
            if names {
                resource_name(errors, status.child(field), key);
            }
        }
    };
    amounts(&mut errors, "capacity", false);
    let states = status.child("allocatedResourceStatuses");
    for (key, state) in map(claim, "status.allocatedResourceStatuses").into_iter().flatten() {
        resource_name(&mut errors, states, key);
        if !state.as_str().is_some_and(|state| RESIZES.contains(&state)) {
            errors.push(FieldError::not_supported(states, key.as_str(), RESIZES));
        }
    }
    amounts(&mut errors, "allocatedResources", true);
    errors
}

/// Quantities are shown without quotes.
fn raw(amount: &str) -> Value {
    amount.parse::<i64>().map_or_else(|_| amount.into(), Value::from)
}

/// Only storage, and names of a domain that is not the project's, are resources of claims.
fn resource_name(errors: &mut Errors, path: Path, key: &str) {
    follows(errors, path, key, names::qualified_name);
    let native = key.split_once('/').is_none_or(|(domain, _)| domain.ends_with("kubernetes.io"));
    if native && key != "storage" {
        errors.push(FieldError::not_supported(path, key, ["storage"]));
    }
}

fn warnings(claim: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = old_annotations(claim, &OLD_ANNOTATIONS[..1]);
    warnings.extend(fractions(at(claim, "spec").unwrap_or(&Value::Null), "spec"));
    warnings
}

/// Bytes that are none, in the spec of a claim at `path`.
pub(crate) fn fractions(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for list in ["requests", "limits"] {
        let size = text(spec, &format!("resources.{list}.storage"));
        if super::pod_spec::warnings::fractional(size) {
            let why = format!("fractional byte value {size:?} is invalid, must be an integer");
            warnings.push(format!("{path}.resources.{list}[storage]: {why}"));
        }
    }
    warnings
}

/// Annotations whose field has come: of claims and volumes, and of volumes only.
pub(crate) const OLD_ANNOTATIONS: [(&str, &str, &str); 2] = [
    ("volume.beta.kubernetes.io/storage-class", "v1.8", "storageClassName"),
    ("volume.beta.kubernetes.io/mount-options", "v1.31", "mountOptions"),
];

/// What to say of those that an object has.
pub(crate) fn old_annotations(object: &Value, old: &[(&str, &str, &str)]) -> Vec<String> {
    let annotations = at(object, "metadata.annotations").unwrap_or(&Value::Null);
    old.iter()
        .filter(|(key, ..)| annotations.get(key).is_some())
        .map(|(key, since, field)| {
            format!("metadata.annotations[{key}]: deprecated since {since}; use {field:?} attribute instead")
        })
        .collect()
}
