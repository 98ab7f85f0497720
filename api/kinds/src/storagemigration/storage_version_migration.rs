//! `storageversionmigrations` of storagemigration.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storagemigration.k8s.io", "v1", "StorageVersionMigration", "storageversionmigrations")
        .status()
        .columns(vec![Column::text("Name"), Column::text("Resource"), Column::text("Status")])
        .conditional_update()
        .generations()
}
