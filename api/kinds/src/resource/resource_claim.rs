//! `resourceclaims` of resource.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use super::check_claim;
use crate::check::immutable;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{at, items};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
        .status()
        .columns(vec![Column::name(), Column::text("State"), Column::text("Age")])
        .fixed_status_metadata()
        .hooks(Hooks {
            row,
            default: |o| super::default_requests(o, "spec.devices.requests"),
            validate,
            validate_update,
            validate_status: check_claim::status,
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let deleting = at(object, "metadata.deletionTimestamp").is_some();
    let allocated = at(object, "status.allocation").is_some();
    let reserved = allocated && !items(object, "status.reservedFor").is_empty();
    let states =
        [("deleted", deleting), ("pending", !allocated && !deleting), ("allocated", allocated), ("reserved", reserved)];
    let state = states.iter().filter(|(_, is)| *is).map(|(state, _)| *state).collect::<Vec<_>>().join(",");
    vec![name(object), state.into(), age(object, now)]
}

fn validate(claim: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_claim::spec(&mut errors, Path::root("spec"), at(claim, "spec").unwrap_or(&Value::Null));
    errors
}

fn validate_update(claim: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    immutable(&mut errors, Path::root("spec"), at(claim, "spec"), at(old, "spec"));
    errors
}
