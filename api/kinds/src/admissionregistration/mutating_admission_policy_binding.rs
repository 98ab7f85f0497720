//! `mutatingadmissionpolicybindings` of admissionregistration.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
    )
    .category("api-extensions")
    .columns(vec![Column::name(), Column::text("PolicyName"), Column::text("ParamRef"), Column::text("Age")])
    .conditional_update()
    .generations()
    .hooks(Hooks { row: super::binding_row, ..Hooks::NONE })
}
