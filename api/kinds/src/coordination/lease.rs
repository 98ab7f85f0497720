//! `leases` of coordination.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("coordination.k8s.io", "v1", "Lease", "leases")
        .columns(vec![Column::name(), Column::text("Holder"), Column::text("Age")])
        .conditional_update()
        .created_by_update()
}
