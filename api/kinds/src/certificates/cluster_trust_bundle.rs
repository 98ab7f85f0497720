//! `clustertrustbundles` of certificates.k8s.io.

use std::collections::HashMap;

use jiff::Timestamp;
use meta::{FieldError, Path, names, pem};
use serde_json::Value;

use super::signer;
use crate::check::{Errors, follows, immutable};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule, Selectable};
use crate::print::{name, text_or};
use crate::value::{at, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("certificates.k8s.io", "v1", "ClusterTrustBundle", "clustertrustbundles")
        .columns(vec![Column::name(), Column::text("SignerName")])
        .selectable(vec![Selectable::path("spec.signerName")])
        .names(NameRule::Any)
        .conditional_update()
        .hooks(Hooks { row, validate, validate_update, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), text_or(object, "spec.signerName", "<none>")]
}

/// Longest bundle, in bytes.
const BUNDLE_LIMIT: usize = 1024 * 1024;
/// Shown in place of a bundle.
const OMITTED: &str = "<value omitted>";

fn validate(bundle: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let signer_name = text(bundle, "spec.signerName");
    bundle_name(&mut errors, text(bundle, "metadata.name"), signer_name);
    let path = Path::root("spec");
    if !signer_name.is_empty() {
        signer::name(&mut errors, path.child("signerName"), signer_name);
    }
    anchors(&mut errors, path.child("trustBundle"), text(bundle, "spec.trustBundle"));
    errors
}

/// A bundle of a signer has the signer's name before its own.
fn bundle_name(errors: &mut Errors, name: &str, signer: &str) {
    let metadata = Path::root("metadata");
    let path = metadata.child("name");
    if signer.is_empty() {
        if name.contains(':') {
            let message = "ClusterTrustBundle without signer name must not have \":\" in its name";
            errors.push(FieldError::invalid(path, name, message));
        } else {
            follows(errors, path, name, names::dns1123_subdomain);
        }
        return;
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => errors
            .extend(names::dns1123_subdomain(rest).into_iter().map(|message| FieldError::invalid(path, name, message))),
        None => {
            let message = format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
            errors.push(FieldError::invalid(path, name, message));
        }
    }
}

fn anchors(errors: &mut Errors, path: Path, bundle: &str) {
    if bundle.len() > BUNDLE_LIMIT {
        errors.push(FieldError::too_long(path, BUNDLE_LIMIT as i64));
        return;
    }
    let blocks = pem::all(bundle);
    if blocks.is_empty() {
        errors.push(FieldError::invalid(path, OMITTED, "at least one trust anchor must be provided"));
        return;
    }
    let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (i, block) in blocks.iter().enumerate() {
        let mut wrong = |message: String| errors.push(FieldError::invalid(path, OMITTED, message));
        if block.kind != "CERTIFICATE" {
            wrong(format!("entry {i} has bad block type: {}", block.kind));
            continue;
        }
        if block.headers {
            wrong(format!("entry {i} has PEM block headers"));
            continue;
        }
        match x509_parser::parse_x509_certificate(&block.content) {
            Err(_) => wrong(format!("entry {i} does not parse as X.509")),
            Ok((_, certificate)) if !certificate.is_ca() => {
                wrong(format!("entry {i} does not have the CA bit set"));
            }
            Ok(_) => places.entry(&block.content).or_default().push(i),
        }
    }
    let mut repeated: Vec<&Vec<usize>> = places.values().filter(|places| places.len() > 1).collect();
    repeated.sort_unstable();
    for places in repeated {
        let list = places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("duplicate trust anchor (indices [{list}])");
        errors.push(FieldError::invalid(path, OMITTED, message));
    }
}

/// A bundle that stays the same stays valid.
fn validate_update(bundle: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    if text(bundle, "spec.trustBundle") != text(old, "spec.trustBundle") {
        anchors(&mut errors, path.child("trustBundle"), text(bundle, "spec.trustBundle"));
    }
    let signer = |object| at(object, "spec.signerName");
    immutable(&mut errors, path.child("signerName"), signer(bundle), signer(old));
    errors
}
