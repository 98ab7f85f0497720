//! `statefulsets` of apps.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .category("all")
        .scale()
        .status()
        .columns(vec![Column::name(), Column::text("Ready"), Column::text("Age"), Column::text("Containers").wide(), Column::text("Images").wide()])
        .generations()
}
