//! `csinodes` of storage.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::{Errors, IMMUTABLE, not_negative};
use crate::core::pod_spec::volume::csi_driver;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{at, items, same, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "CSINode", "csinodes")
        .status()
        .columns(vec![Column::name(), Column::int("Drivers"), Column::text("Age")])
        .conditional_update()
        .fixed_status_metadata()
        .hooks(Hooks { row, validate, validate_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items(object, "spec.drivers").len().into(), age(object, now)]
}

/// Longest name of a node that a driver may choose.
const NODE_ID_LIMIT: usize = 192;

fn validate(node: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::root("spec");
    let list = spec.child("drivers");
    let mut seen: Vec<&str> = Vec::new();
    for (i, driver) in items(node, "spec.drivers").iter().enumerate() {
        let (path, name) = (list.index(i), text(driver, "name"));
        csi_driver(&mut errors, path.child("name"), name);
        node_id(&mut errors, path.child("nodeID"), text(driver, "nodeID"));
        if let Some(allocatable) = at(driver, "allocatable") {
            not_negative(&mut errors, &path.child("allocatable"), allocatable, "count");
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        seen.push(name);
        let keys = items(driver, "topologyKeys");
        for (j, key) in keys.iter().enumerate() {
            let topology = path.child("topologyKeys");
            if keys[..j].contains(key) {
                errors.push(FieldError::duplicate(topology, key.clone()));
            }
            let key = key.as_str().unwrap_or("");
            crate::check::label_name(&mut errors, topology, key);
        }
    }
    errors
}

fn node_id(errors: &mut Errors, path: Path, id: &str) {
    if id.is_empty() {
        errors.push(FieldError::required(path, id));
    }
    if id.len() > NODE_ID_LIMIT {
        let message = format!("must be {NODE_ID_LIMIT} characters or less");
        errors.push(FieldError::invalid(path, id, message));
    }
}

/// Drivers come and go; one that stays does not change.
fn validate_update(node: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(node);
    for driver in items(node, "spec.drivers") {
        let known = items(old, "spec.drivers").iter().find(|d| text(d, "name") == text(driver, "name"));
        if known.is_some_and(|known| !same(Some(driver), Some(known))) {
            errors.push(FieldError::invalid("CSINodeDriver", driver.clone(), IMMUTABLE));
        }
    }
    errors
}
