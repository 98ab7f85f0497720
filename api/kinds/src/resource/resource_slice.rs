//! `resourceslices` of resource.k8s.io.

use crate::kind::{Column, Kind, Selectable};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("resource.k8s.io", "v1", "ResourceSlice", "resourceslices")
        .columns(vec![Column::name(), Column::text("Node"), Column::text("Driver"), Column::text("Pool"), Column::text("Age")])
        .selectable(vec![Selectable::path("spec.nodeName"), Selectable::path("spec.driver"), Selectable::at("spec.pool.name", &["spec.pool.name"])])
        .generations()
}
