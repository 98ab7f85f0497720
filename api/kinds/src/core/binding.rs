//! `bindings`.

use meta::Gvr;

use crate::kind::{Action, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Binding", "bindings").answers(Action::BindingOf(Gvr::new("", "v1", "pods")))
}
