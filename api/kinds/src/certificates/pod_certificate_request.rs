//! `podcertificaterequests` of certificates.k8s.io.

use crate::kind::{Column, Kind, Selectable};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("certificates.k8s.io", "v1", "PodCertificateRequest", "podcertificaterequests")
        .status()
        .columns(vec![Column::name(), Column::text("PodName"), Column::text("ServiceAccountName"), Column::text("NodeName"), Column::text("SignerName"), Column::text("State"), Column::text("UnverifiedUserAnnotations")])
        .selectable(vec![Selectable::path("spec.signerName"), Selectable::path("spec.podName"), Selectable::path("spec.nodeName")])
        .conditional_update()
}
