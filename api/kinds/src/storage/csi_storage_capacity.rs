//! `csistoragecapacities` of storage.k8s.io.

use meta::{FieldError, Path, Quantity, names};
use serde_json::Value;

use crate::check::{NEGATIVE, immutable, label_selector};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};
use crate::value::{at, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
        .columns(vec![Column::name(), Column::date("Created At")])
        .names(NameRule::Subdomain)
        .conditional_update()
        .hooks(Hooks { row: crate::print::name_and_creation, validate, validate_update, ..Hooks::NONE })
}

fn validate(capacity: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    label_selector(&mut errors, Path::root("nodeTopology"), at(capacity, "nodeTopology"));
    let class = text(capacity, "storageClassName");
    crate::check::follows(&mut errors, Path::root("storageClassName"), class, names::dns1123_subdomain);
    for key in ["capacity", "maximumVolumeSize"] {
        if let Some(amount) = text(capacity, key).parse::<Quantity>().ok().filter(|a| a.sign() < 0) {
            errors.push(FieldError::invalid(key, amount.to_string(), NEGATIVE));
        }
    }
    errors
}

fn validate_update(capacity: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(capacity);
    for key in ["nodeTopology", "storageClassName"] {
        immutable(&mut errors, Path::root(key), at(capacity, key), at(old, key));
    }
    errors
}
