//! `networkpolicies` of networking.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .columns(vec![Column::name(), Column::text("Pod-Selector"), Column::text("Age")])
        .generations()
}
