//! `cronjobs` of batch.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .category("all")
        .status()
        .columns(vec![Column::name(), Column::text("Schedule"), Column::text("Timezone"), Column::boolean("Suspend"), Column::int("Active"), Column::text("Last Schedule"), Column::text("Age"), Column::text("Containers").wide(), Column::text("Images").wide(), Column::text("Selector").wide()])
        .generations()
}
