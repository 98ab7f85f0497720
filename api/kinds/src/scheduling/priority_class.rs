//! `priorityclasses` of scheduling.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .columns(vec![Column::name(), Column::int("Value"), Column::boolean("Global-Default"), Column::text("Age"), Column::text("PreemptionPolicy")])
        .generations()
}
