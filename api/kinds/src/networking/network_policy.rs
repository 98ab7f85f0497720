//! `networkpolicies` of networking.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name, selector};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .columns(vec![Column::name(), Column::text("Pod-Selector"), Column::text("Age")])
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector(object, "spec.podSelector"), age(object, now)]
}
