//! `replicasets` of apps.

use crate::kind::{Column, Kind, Selectable};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .category("all")
        .scale()
        .status()
        .columns(vec![Column::name(), Column::int("Desired"), Column::int("Current"), Column::int("Ready"), Column::text("Age"), Column::text("Containers").wide(), Column::text("Images").wide(), Column::text("Selector").wide()])
        .selectable(vec![Selectable::path("status.replicas").or("0")])
        .generations()
}
