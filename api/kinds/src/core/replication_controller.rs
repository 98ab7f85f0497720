//! `replicationcontrollers`.

use crate::kind::{Column, Kind, Selectable};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .category("all")
        .stored_at("/registry/controllers")
        .scale()
        .status()
        .columns(vec![Column::name(), Column::int("Desired"), Column::int("Current"), Column::int("Ready"), Column::text("Age"), Column::text("Containers").wide(), Column::text("Images").wide(), Column::text("Selector").wide()])
        .selectable(vec![Selectable::path("status.replicas").or("0")])
        .generations()
}
