//! `secrets`.

use crate::kind::{Column, Kind, Selectable};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Secret", "secrets")
        .columns(vec![Column::name(), Column::text("Type"), Column::text("Data"), Column::text("Age")])
        .selectable(vec![Selectable::path("type")])
}
