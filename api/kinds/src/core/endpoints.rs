//! `endpoints`.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Endpoints", "endpoints")
        .short(&["ep"])
        .stored_at("/registry/services/endpoints")
        .columns(vec![Column::name(), Column::text("Endpoints"), Column::text("Age")])
        .created_by_update()
}
