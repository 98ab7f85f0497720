//! `resourceclaimtemplates` of resource.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
        .columns(vec![Column::name(), Column::text("Age")])
        .hooks(Hooks { default: |o| super::default_requests(o, "spec.spec.devices.requests"), ..Hooks::NONE })
}
