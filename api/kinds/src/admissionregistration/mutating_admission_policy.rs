//! `mutatingadmissionpolicies` of admissionregistration.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
        .category("api-extensions")
        .columns(vec![Column::name(), Column::int("Mutations"), Column::text("ParamKind"), Column::text("Age")])
        .conditional_update()
        .generations()
        .hooks(Hooks { row: |object, now| super::policy_row(object, "spec.mutations", now), ..Hooks::NONE })
}
