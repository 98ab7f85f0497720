//! `volumeattributesclasses` of storage.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses")
        .short(&["vac"])
        .columns(vec![Column::name(), Column::text("DriverName"), Column::text("Age")])
}
