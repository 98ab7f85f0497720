//! `certificatesigningrequests` of certificates.k8s.io.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::check_request;
use crate::hooks::{Context, Hooks};
use crate::kind::{Action, Column, Kind, Selectable, Verbs, Writes};
use crate::print::{age, condition, name, text_or};
use crate::value::{at, int, items, items_mut, keep, remove, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests")
        .short(&["csr"])
        .writing(
            "approval",
            Action::Approval,
            Verbs::GET_PATCH_UPDATE,
            Writes { prepare: prepare_approval, validate: check_request::approval },
        )
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
        .hooks(Hooks {
            row,
            prepare_create,
            prepare_update,
            prepare_status,
            validate: check_request::create,
            validate_update: check_request::update,
            validate_status: check_request::status,
            ..Hooks::NONE
        })
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

/// Who asks is written by the server.
fn prepare_create(request: &mut Value, context: &Context) {
    for field in ["username", "uid", "groups", "extra"] {
        remove(request, &format!("spec.{field}"));
    }
    let user = &context.user;
    set(request, "spec.username", user.name.as_str());
    set(request, "spec.uid", user.uid.as_str());
    set(request, "spec.groups", user.groups.clone());
    let extra: Map<String, Value> = user.extra.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    set(request, "spec.extra", extra);
}

/// Spec and status never change through the main resource.
fn prepare_update(request: &mut Value, old: &Value, _context: &Context) {
    keep(request, old, "spec");
}

/// Approval and denial are not for signers to change; new conditions count from now.
fn prepare_status(request: &mut Value, old: &Value, context: &Context) {
    for kind in ["Approved", "Denied"] {
        let of_kind = |r: &Value| items(r, "status.conditions").iter().filter(|c| text(c, "type") == kind).count();
        if of_kind(request) == of_kind(old) {
            let mut known = items(old, "status.conditions").iter().filter(|c| text(c, "type") == kind);
            for condition in items_mut(request, "status.conditions").filter(|c| text(c, "type") == kind) {
                if let Some(known) = known.next() {
                    *condition = known.clone();
                }
            }
        }
    }
    stamp_conditions(request, old, context);
}

/// /approval changes conditions only.
fn prepare_approval(request: &mut Value, old: &Value, context: &Context) {
    stamp_conditions(request, old, context);
    let conditions = remove(request, "status.conditions");
    keep(request, old, "spec");
    keep(request, old, "status");
    if let Some(conditions) = conditions {
        set(request, "status.conditions", conditions);
    }
}

fn stamp_conditions(request: &mut Value, old: &Value, context: &Context) {
    let now = meta::time::format(context.now);
    for condition in items_mut(request, "status.conditions") {
        if at(condition, "lastUpdateTime").is_none() {
            set(condition, "lastUpdateTime", now.as_str());
        }
        if at(condition, "lastTransitionTime").is_none() {
            let same = |c: &&Value| ["type", "status"].iter().all(|key| text(c, key) == text(condition, key));
            let known = items(old, "status.conditions").iter().find(same).map(|c| text(c, "lastTransitionTime"));
            let time = known.filter(|t| !t.is_empty()).unwrap_or(&now).to_owned();
            set(condition, "lastTransitionTime", time);
        }
    }
}
