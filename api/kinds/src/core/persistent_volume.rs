//! `persistentvolumes`.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "PersistentVolume", "persistentvolumes")
        .short(&["pv"])
        .status()
        .columns(vec![Column::name(), Column::text("Capacity"), Column::text("Access Modes"), Column::text("Reclaim Policy"), Column::text("Status"), Column::text("Claim"), Column::text("StorageClass"), Column::text("VolumeAttributesClass"), Column::text("Reason"), Column::text("Age"), Column::text("VolumeMode").wide()])
}
