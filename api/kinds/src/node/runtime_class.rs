//! `runtimeclasses` of node.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .columns(vec![Column::name(), Column::text("Handler"), Column::text("Age")])
        .conditional_update()
        .created_by_update()
}
