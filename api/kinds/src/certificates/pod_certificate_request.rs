//! `podcertificaterequests` of certificates.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{labels, name};
use crate::value::{items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("certificates.k8s.io", "v1", "PodCertificateRequest", "podcertificaterequests")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("PodName"),
            Column::text("ServiceAccountName"),
            Column::text("NodeName"),
            Column::text("SignerName"),
            Column::text("State"),
            Column::text("UnverifiedUserAnnotations"),
        ])
        .selectable(vec![
            Selectable::path("spec.signerName"),
            Selectable::path("spec.podName"),
            Selectable::path("spec.nodeName"),
        ])
        .conditional_update()
        .fixed_status_metadata()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let mut states = items(object, "status.conditions").iter().map(|c| text(c, "type"));
    let state = states.rfind(|t| ["Issued", "Denied", "Failed"].contains(t)).unwrap_or("Pending");
    vec![
        name(object),
        text(object, "spec.podName").into(),
        text(object, "spec.serviceAccountName").into(),
        text(object, "spec.nodeName").into(),
        text(object, "spec.signerName").into(),
        state.into(),
        labels(object, "spec.unverifiedUserAnnotations"),
    ]
}
