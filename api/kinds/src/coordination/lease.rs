//! `leases` of coordination.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{remove, text};

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
