//! `limitranges`.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "LimitRange", "limitranges")
        .short(&["limits"])
        .columns(vec![Column::name(), Column::date("Created At")])
        .created_by_update()
        .hooks(Hooks { row: crate::print::name_and_creation, ..Hooks::NONE })
}
