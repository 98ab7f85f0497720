//! `networkpolicies` of networking.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name, selector};
use crate::value::{at, items, set};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .columns(vec![Column::name(), Column::text("Pod-Selector"), Column::text("Age")])
        .generations()
        .hooks(Hooks { row, default, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector(object, "spec.podSelector"), age(object, now)]
}

/// A policy is about ingress, and about egress if it has rules for it.
fn default(policy: &mut Value) {
    if at(policy, "spec").is_none() || !items(policy, "spec.policyTypes").is_empty() {
        return;
    }
    let egress = !items(policy, "spec.egress").is_empty();
    let types: &[&str] = if egress { &["Ingress", "Egress"] } else { &["Ingress"] };
    set(policy, "spec.policyTypes", types);
}
