//! `componentstatuses`.

use crate::kind::{Column, Kind, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "ComponentStatus", "componentstatuses")
        .short(&["cs"])
        .virtual_with(Verbs::GET.and(Verbs::LIST))
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Message"), Column::text("Error")])
}
