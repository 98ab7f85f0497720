//! `mutatingwebhookconfigurations` of admissionregistration.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    )
    .category("api-extensions")
    .columns(vec![Column::name(), Column::int("Webhooks"), Column::text("Age")])
    .conditional_update()
    .generations()
    .hooks(Hooks { row: super::webhooks_row, ..Hooks::NONE })
}
