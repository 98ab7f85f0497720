//! `clustertrustbundles` of certificates.k8s.io.

use crate::kind::{Column, Kind, NameRule, Selectable};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("certificates.k8s.io", "v1", "ClusterTrustBundle", "clustertrustbundles")
        .columns(vec![Column::name(), Column::text("SignerName")])
        .selectable(vec![Selectable::path("spec.signerName")])
        .names(NameRule::Any)
        .conditional_update()
}
