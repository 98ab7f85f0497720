//! `validatingadmissionpolicies` of admissionregistration.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
        .category("api-extensions")
        .status()
        .columns(vec![Column::name(), Column::int("Validations"), Column::text("ParamKind"), Column::text("Age")])
        .conditional_update()
        .generations()
        .fixed_status_metadata()
        .hooks(Hooks { row: |object, now| super::policy_row(object, "spec.validations", now), ..Hooks::NONE })
}
