//! `namespaces`.

use crate::kind::{Action, Column, Kind, NameRule, Selectable, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .without(Verbs::DELETE_COLLECTION)
        .own("finalize", Action::Finalize, Verbs::UPDATE)
        .status()
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Age")])
        .selectable(vec![Selectable::path("status.phase")])
        .names(NameRule::Label)
}
