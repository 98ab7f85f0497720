//! `serviceaccounts`.

use meta::Gvk;

use crate::kind::{Action, Column, Kind, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .foreign(
            "token",
            Gvk::new("authentication.k8s.io", "v1", "TokenRequest"),
            vec![Gvk::new("authentication.k8s.io", "v1", "TokenRequest")],
            Action::Token,
            Verbs::CREATE,
        )
        .columns(vec![Column::name(), Column::text("Age")])
}
