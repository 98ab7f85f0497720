//! `certificatesigningrequests` of certificates.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Action, Column, Kind, Selectable, Verbs};
use crate::print::{age, condition, name, text_or};
use crate::value::{int, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests")
        .short(&["csr"])
        .own("approval", Action::Approval, Verbs::GET_PATCH_UPDATE)
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Age"),
            Column::text("SignerName"),
            Column::text("Requestor"),
            Column::text("RequestedDuration"),
            Column::text("Condition"),
        ])
        .selectable(vec![Selectable::path("spec.signerName")])
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let requested = int(object, "spec.expirationSeconds").map_or_else(|| "<none>".to_owned(), meta::duration::human);
    let has = |kind| condition(object, kind).is_some();
    let mut status = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_owned();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !text(object, "status.certificate").is_empty() {
        status.push_str(",Issued");
    }
    vec![
        name(object),
        age(object, now),
        text_or(object, "spec.signerName", "<none>"),
        text(object, "spec.username").into(),
        requested.into(),
        status.into(),
    ]
}
