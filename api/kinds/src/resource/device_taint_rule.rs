//! `devicetaintrules` of resource.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("resource.k8s.io", "v1", "DeviceTaintRule", "devicetaintrules")
        .status()
        .columns(vec![Column::name(), Column::text("Key"), Column::text("Value"), Column::text("Effect"), Column::text("TimeAdded"), Column::text("Age")])
        .conditional_update()
        .generations()
}
