//! `csinodes` of storage.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "CSINode", "csinodes")
        .status()
        .columns(vec![Column::name(), Column::int("Drivers"), Column::text("Age")])
        .conditional_update()
}
