//! `jobs` of batch.

use crate::kind::{Column, Kind, Selectable};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("batch", "v1", "Job", "jobs")
        .category("all")
        .status()
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Completions"), Column::text("Duration"), Column::text("Age"), Column::text("Containers").wide(), Column::text("Images").wide(), Column::text("Selector").wide()])
        .selectable(vec![Selectable::at("status.successful", &["status.succeeded"]).or("0")])
        .generations()
}
