//! `leases` of coordination.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::NEGATIVE;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{int, remove, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("coordination.k8s.io", "v1", "Lease", "leases")
        .columns(vec![Column::name(), Column::text("Holder"), Column::text("Age")])
        .conditional_update()
        .created_by_update()
        .hooks(Hooks {
            row,
            prepare_create: |o, _| drop_disabled(o),
            prepare_update: |o, _, _| drop_disabled(o),
            validate: check,
            validate_update: |o, _| check(o),
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "spec.holderIdentity").into(), age(object, now)]
}

/// Fields of coordinated leader election, which is off by default, are not kept.
fn drop_disabled(lease: &mut Value) {
    remove(lease, "spec.strategy");
    remove(lease, "spec.preferredHolder");
}

fn check(lease: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    if let Some(seconds) = int(lease, "spec.leaseDurationSeconds").filter(|n| *n <= 0) {
        errors.push(FieldError::invalid(path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    if let Some(transitions) = int(lease, "spec.leaseTransitions").filter(|n| *n < 0) {
        errors.push(FieldError::invalid(path.child("leaseTransitions"), transitions, NEGATIVE));
    }
    errors
}
