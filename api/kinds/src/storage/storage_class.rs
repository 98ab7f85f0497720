//! `storageclasses` of storage.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .short(&["sc"])
        .columns(vec![Column::name(), Column::text("Provisioner"), Column::text("ReclaimPolicy"), Column::text("VolumeBindingMode"), Column::text("AllowVolumeExpansion"), Column::text("Age")])
}
