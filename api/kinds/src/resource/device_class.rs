//! `deviceclasses` of resource.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("resource.k8s.io", "v1", "DeviceClass", "deviceclasses")
        .columns(vec![Column::name(), Column::text("Age")])
        .generations()
}
