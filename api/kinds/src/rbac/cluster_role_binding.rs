//! `clusterrolebindings` of rbac.authorization.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};
use crate::rbac::validate::{binding, binding_update};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings")
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
        .hooks(Hooks {
            row: super::binding_row,
            default: super::default_subjects,
            validate: |o| binding(o, false),
            validate_update: |o, old| binding_update(o, old, false),
            ..Hooks::NONE
        })
}
