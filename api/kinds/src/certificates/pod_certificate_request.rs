//! `podcertificaterequests` of certificates.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use super::signer;
use crate::check::{IMMUTABLE, named};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{labels, name};
use crate::value::{at, int, items, map, same, text};

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
        .hooks(Hooks { row, validate, validate_update, validate_status, ..Hooks::NONE })
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

/// Lives of certificates that may be asked for, in seconds; those that the cluster's own signers give are shorter.
const SECONDS: (i64, i64) = (3_600, 91 * 86_400);
const KUBERNETES_MOST: i64 = 86_400;
const UID_LIMIT: usize = 128;

fn validate(request: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(request, "spec").unwrap_or(&Value::Null);
    signer::name(&mut errors, path.child("signerName"), text(spec, "signerName"));
    for key in ["podName", "serviceAccountName", "nodeName"] {
        named(&mut errors, &path, spec, key, names::dns1123_subdomain);
    }
    for key in ["podUID", "serviceAccountUID", "nodeUID"] {
        match text(spec, key) {
            "" => errors.push(FieldError::required(path.child(key), "must not be empty")),
            uid if uid.len() > UID_LIMIT => errors.push(FieldError::too_long(path.child(key), UID_LIMIT as i64)),
            _ => {}
        }
    }
    expiration(&mut errors, path.child("maxExpirationSeconds"), spec);
    if at(spec, "stubPKCS10Request").is_none() {
        errors.push(FieldError::required(path.child("stubPKCS10Request"), "must not be empty"));
    }
    let list = path.child("unverifiedUserAnnotations");
    for (key, _) in map(spec, "unverifiedUserAnnotations").into_iter().flatten() {
        crate::check::domain_prefixed_path(&mut errors, list.key(key), key);
    }
    errors
}

fn expiration(errors: &mut Vec<FieldError>, path: Path, spec: &Value) {
    let Some(seconds) = int(spec, "maxExpirationSeconds") else {
        errors.push(FieldError::required(path, "must be set"));
        return;
    };
    let ours = text(spec, "signerName").starts_with("kubernetes.io/");
    let most = if ours { KUBERNETES_MOST } else { SECONDS.1 };
    if seconds < SECONDS.0 || seconds > most {
        let message = format!("must be in the range [{}, {most}]", SECONDS.0);
        errors.push(FieldError::invalid(path, seconds, message));
    }
}

fn validate_update(request: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (spec, was) = (at(request, "spec"), at(old, "spec"));
    if !same(spec, was) {
        errors.push(FieldError::invalid("spec", spec.cloned().unwrap_or_default(), IMMUTABLE));
    }
    errors
}

/// One of three outcomes, once.
fn validate_status(request: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::root("status");
    let list = status.child("conditions");
    let conditions = items(request, "status.conditions");
    crate::conditions::validate(&mut errors, list, conditions);
    let mut outcomes = 0;
    for (i, condition) in conditions.iter().enumerate() {
        let (path, kind) = (list.index(i), text(condition, "type"));
        if !["Issued", "Denied", "Failed"].contains(&kind) {
            errors.push(FieldError::not_supported(path.child("type"), kind, ["Denied", "Failed", "Issued"]));
            continue;
        }
        outcomes += 1;
        if text(condition, "status") != "True" {
            errors.push(FieldError::not_supported(path.child("status"), text(condition, "status"), ["True"]));
        }
        if outcomes > 1 {
            let message = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(FieldError::invalid(path.child("type"), kind, message));
        }
    }
    errors
}
