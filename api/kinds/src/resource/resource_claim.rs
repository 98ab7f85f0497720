//! `resourceclaims` of resource.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

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
        .hooks(Hooks { row, default: |o| super::default_requests(o, "spec.devices.requests"), ..Hooks::NONE })
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
