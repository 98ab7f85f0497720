//! `resourcequotas`.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ResourceQuota", "resourcequotas")
        .short(&["quota"])
        .status()
        .columns(vec![Column::name(), Column::text("Request"), Column::text("Limit"), Column::text("Age")])
}
