//! `deployments` of apps.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .category("all")
        .scale()
        .status()
        .columns(vec![Column::name(), Column::text("Ready"), Column::text("Up-to-date"), Column::text("Available"), Column::text("Age"), Column::text("Containers").wide(), Column::text("Images").wide(), Column::text("Selector").wide()])
        .generations()
}
