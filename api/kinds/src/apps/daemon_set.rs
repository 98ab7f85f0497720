//! `daemonsets` of apps.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .category("all")
        .status()
        .columns(vec![Column::name(), Column::int("Desired"), Column::int("Current"), Column::int("Ready"), Column::int("Up-to-date"), Column::int("Available"), Column::text("Node Selector"), Column::text("Age"), Column::text("Containers").wide(), Column::text("Images").wide(), Column::text("Selector").wide()])
        .generations()
}
