//! `roles` of rbac.authorization.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};
use crate::rbac::validate::rules;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("rbac.authorization.k8s.io", "v1", "Role", "roles")
        .columns(vec![Column::name(), Column::date("Created At")])
        .names(NameRule::PathSegment)
        .created_by_update()
        .hooks(Hooks {
            row: crate::print::name_and_creation,
            validate: |o| rules(o, true),
            validate_update: |o, _| rules(o, true),
            ..Hooks::NONE
        })
}
