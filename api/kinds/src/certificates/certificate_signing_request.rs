//! `certificatesigningrequests` of certificates.k8s.io.

use crate::kind::{Action, Column, Kind, Selectable, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests")
        .short(&["csr"])
        .own("approval", Action::Approval, Verbs::GET_PATCH_UPDATE)
        .status()
        .columns(vec![Column::name(), Column::text("Age"), Column::text("SignerName"), Column::text("Requestor"), Column::text("RequestedDuration"), Column::text("Condition")])
        .selectable(vec![Selectable::path("spec.signerName")])
}
