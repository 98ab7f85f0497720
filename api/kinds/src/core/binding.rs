//! `bindings`.

use crate::kind::{Kind, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Binding", "bindings").virtual_with(Verbs::CREATE)
}
