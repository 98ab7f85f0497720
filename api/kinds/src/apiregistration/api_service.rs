//! `apiservices` of apiregistration.k8s.io.

use crate::kind::{Column, Kind, NameRule};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("apiregistration.k8s.io", "v1", "APIService", "apiservices")
        .category("api-extensions")
        .stored_at("/registry/apiregistration.k8s.io/apiservices")
        .status()
        .columns(vec![Column::name(), Column::text("Service"), Column::text("Available"), Column::text("Age")])
        .names(NameRule::Any)
        .conditional_update()
        .generations()
}
