//! `rolebindings` of rbac.authorization.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
        .columns(vec![
            Column::name(),
            Column::text("Role"),
            Column::text("Age"),
            Column::text("Users").wide(),
            Column::text("Groups").wide(),
            Column::text("ServiceAccounts").wide(),
        ])
        .names(NameRule::PathSegment)
        .created_by_update()
        .hooks(Hooks { row: super::binding_row, default: super::default_subjects, ..Hooks::NONE })
}
