//! `ingresses` of networking.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("networking.k8s.io", "v1", "Ingress", "ingresses")
        .short(&["ing"])
        .stored_at("/registry/ingress")
        .status()
        .columns(vec![Column::name(), Column::text("Class"), Column::text("Hosts"), Column::text("Address"), Column::text("Ports"), Column::text("Age")])
        .generations()
}
