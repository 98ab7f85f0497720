//! `csidrivers` of storage.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "CSIDriver", "csidrivers")
        .columns(vec![Column::name(), Column::boolean("AttachRequired"), Column::boolean("PodInfoOnMount"), Column::boolean("StorageCapacity"), Column::text("TokenRequests"), Column::boolean("RequiresRepublish"), Column::text("Modes"), Column::text("Age")])
        .conditional_update()
        .generations()
}
