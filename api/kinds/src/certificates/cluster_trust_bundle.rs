//! `clustertrustbundles` of certificates.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule, Selectable};
use crate::print::{name, text_or};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("certificates.k8s.io", "v1", "ClusterTrustBundle", "clustertrustbundles")
        .columns(vec![Column::name(), Column::text("SignerName")])
        .selectable(vec![Selectable::path("spec.signerName")])
        .names(NameRule::Any)
        .conditional_update()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), text_or(object, "spec.signerName", "<none>")]
}
