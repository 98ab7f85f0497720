//! `resourceclaims` of resource.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
        .status()
        .columns(vec![Column::name(), Column::text("State"), Column::text("Age")])
        .generations()
}
