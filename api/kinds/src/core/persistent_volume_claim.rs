//! `persistentvolumeclaims`.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .status()
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Volume"), Column::text("Capacity"), Column::text("Access Modes"), Column::text("StorageClass"), Column::text("VolumeAttributesClass"), Column::text("Age"), Column::text("VolumeMode").wide()])
}
