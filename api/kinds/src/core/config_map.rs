//! `configmaps`.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ConfigMap", "configmaps")
        .short(&["cm"])
        .columns(vec![Column::name(), Column::text("Data"), Column::text("Age")])
}
