//! `volumeattachments` of storage.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
        .status()
        .columns(vec![Column::name(), Column::text("Attacher").named(), Column::text("PV"), Column::text("Node"), Column::boolean("Attached"), Column::text("Age")])
        .conditional_update()
}
