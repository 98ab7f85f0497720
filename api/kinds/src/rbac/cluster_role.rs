//! `clusterroles` of rbac.authorization.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};
use crate::rbac::validate::cluster_role;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles")
        .columns(vec![Column::name(), Column::date("Created At")])
        .names(NameRule::PathSegment)
        .created_by_update()
        .hooks(Hooks {
            row: crate::print::name_and_creation,
            validate: cluster_role,
            validate_update: |o, _| cluster_role(o),
            ..Hooks::NONE
        })
}
