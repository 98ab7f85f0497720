//! `ingressclasses` of networking.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("networking.k8s.io", "v1", "IngressClass", "ingressclasses")
        .columns(vec![Column::name(), Column::text("Controller"), Column::text("Parameters"), Column::text("Age")])
        .generations()
}
