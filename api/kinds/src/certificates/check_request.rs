//! What makes a signing request valid, and what signers and approvers may do to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::{FieldError, Path, pem};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::signer;
use crate::check::Errors;
use crate::value::{at, int, items, text};

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Shortest life of a certificate that may be asked for, in seconds.
const SHORTEST: i64 = 600;

/// A request of the first version of the API, which let the server guess the signer.
const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// Everything wrong with a new request.
pub(super) fn create(request: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(request, "spec").unwrap_or(&Value::Null);
    if let Some(why) = unreadable(text(spec, "request")) {
        errors.push(FieldError::invalid(path.child("request"), text(spec, "request"), why));
    }
    usages(&mut errors, path.child("usages"), items(spec, "usages"));
    if text(spec, "signerName") == LEGACY {
        let message = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(path.child("signerName"), LEGACY, message));
    } else {
        signer::name(&mut errors, path.child("signerName"), text(spec, "signerName"));
    }
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|s| *s < SHORTEST) {
        let message = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(path.child("expirationSeconds"), seconds, message));
    }
    errors.extend(conditions(request));
    errors
}

/// Why the base64 text is not a signing request.
fn unreadable(encoded: &str) -> Option<String> {
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let Some((block, _)) = pem::first(&text).filter(|(block, _)| block.kind == "CERTIFICATE REQUEST") else {
        return Some("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    let Ok((_, request)) = X509CertificationRequest::from_der(&block.content) else {
        return Some("asn1: structure error".to_owned());
    };
    malformed(&request).map(|what| format!("x509: {what}"))
}

/// What of a request Go can't read: a name that one program takes for ASCII and another doesn't must not be signed.
fn malformed(request: &X509CertificationRequest<'_>) -> Option<String> {
    let subject = &request.certification_request_info.subject;
    if subject.iter_common_name().chain(subject.iter_organization()).any(|name| name.as_str().is_err()) {
        return Some("invalid RDNSequence: invalid attribute value: unsupported string type".to_owned());
    }
    let requested = request.requested_extensions().into_iter().flatten();
    let names = requested.filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.flatten().find_map(|name| match name {
        GeneralName::RFC822Name(text) if !text.is_ascii() => Some("SAN rfc822Name is malformed".to_owned()),
        GeneralName::DNSName(text) if !text.is_ascii() => Some("SAN dNSName is malformed".to_owned()),
        GeneralName::URI(text) if !text.is_ascii() => Some("SAN uniformResourceIdentifier is malformed".to_owned()),
        GeneralName::IPAddress(bytes) if !matches!(bytes.len(), 4 | 16) => {
            Some(format!("cannot parse IP address of length {}", bytes.len()))
        }
        GeneralName::Invalid(..) => Some("SAN is malformed".to_owned()),
        _ => None,
    })
}

fn usages(errors: &mut Errors, path: Path, usages: &[Value]) {
    if usages.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    for (i, usage) in usages.iter().enumerate() {
        let word = usage.as_str().unwrap_or("");
        if !USAGES.contains(&word) {
            errors.push(FieldError::not_supported(path.index(i), word, USAGES));
        } else if usages[..i].contains(usage) {
            errors.push(FieldError::duplicate(path.index(i), word));
        }
    }
}

fn conditions(request: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::root("status");
    let list = status.child("conditions");
    let conditions = items(request, "status.conditions");
    for (i, condition) in conditions.iter().enumerate() {
        let (path, kind) = (list.index(i), text(condition, "type"));
        if kind.is_empty() {
            errors.push(FieldError::required(path.child("type"), ""));
        }
        match (kind, text(condition, "status")) {
            (_, "") => errors.push(FieldError::required(path.child("status"), "")),
            ("Approved" | "Denied" | "Failed", "True") => {}
            ("Approved" | "Denied" | "Failed", other) => {
                errors.push(FieldError::not_supported(path.child("status"), other, ["True"]));
            }
            (_, "True" | "False" | "Unknown") => {}
            (_, other) => {
                errors.push(FieldError::not_supported(path.child("status"), other, ["False", "True", "Unknown"]));
            }
        }
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if conditions[..i].iter().any(|c| !opposite.is_empty() && text(c, "type") == opposite) {
            let message = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(path.child("type"), kind, message));
        }
        if conditions[..i].iter().any(|c| text(c, "type") == kind) {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
    }
    errors
}

/// Everything wrong with an update of the main resource.
pub(super) fn update(request: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = fixed_conditions(request, old, &["Approved", "Denied", "Failed"]);
    if text(request, "status.certificate") != text(old, "status.certificate") {
        errors.push(FieldError::forbidden("status.certificate", "updates may not set certificate content"));
    }
    errors
}

/// Everything wrong with an update of /approval.
pub(super) fn approval(request: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = conditions(request);
    errors.extend(kept_conditions(request, old));
    errors
}

/// Everything wrong with an update of /status.
pub(super) fn status(request: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = conditions(request);
    let certificate = text(request, "status.certificate");
    if certificate != text(old, "status.certificate") {
        match text(old, "status.certificate") {
            "" => errors.extend(chain(certificate)),
            _ => {
                let message = "updates may not modify existing certificate content";
                errors.push(FieldError::forbidden("status.certificate", message));
            }
        }
    }
    errors.extend(kept_conditions(request, old));
    errors.extend(fixed_conditions(request, old, &["Approved", "Denied"]));
    errors
}

/// A condition that was taken stays.
fn kept_conditions(request: &Value, old: &Value) -> Vec<FieldError> {
    let count = |object: &Value, kind: &str| {
        items(object, "status.conditions").iter().filter(|c| text(c, "type") == kind).count()
    };
    ["Approved", "Denied", "Failed"]
        .into_iter()
        .filter(|kind| count(request, kind) < count(old, kind))
        .map(|kind| {
            let message = format!("updates may not remove a condition of type {}", meta::text::quote(kind));
            FieldError::forbidden("status.conditions", message)
        })
        .collect()
}

/// Conditions that only another subresource adds.
fn fixed_conditions(request: &Value, old: &Value, kinds: &[&str]) -> Vec<FieldError> {
    let count = |object: &Value, kind: &str| {
        items(object, "status.conditions").iter().filter(|c| text(c, "type") == kind).count()
    };
    kinds
        .iter()
        .filter(|kind| count(request, kind) > count(old, kind))
        .map(|kind| {
            let message = format!("updates may not add a condition of type {}", meta::text::quote(kind));
            FieldError::forbidden("status.conditions", message)
        })
        .collect()
}

/// The certificate that a signer issued: certificates and nothing else.
fn chain(encoded: &str) -> Vec<FieldError> {
    if encoded.is_empty() {
        return Vec::new();
    }
    let wrong = |why: String| vec![FieldError::invalid("status.certificate", "<certificate data>", why)];
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let blocks = pem::all(&text);
    if blocks.is_empty() {
        return wrong("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    for block in &blocks {
        if block.kind != "CERTIFICATE" {
            return wrong(format!("only CERTIFICATE PEM blocks are allowed, found {}", meta::text::quote(&block.kind)));
        }
        if block.headers {
            return wrong("no PEM block headers are permitted".to_owned());
        }
        if x509_parser::parse_x509_certificate(&block.content).is_err() {
            return wrong("x509: malformed certificate".to_owned());
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl req -new`, the DNS name then changed to `bücher.example` and signed again.
    const UMLAUT: &str = include_str!("testdata/umlaut.csr");
    /// The same with the organisation as a TeletexString.
    const T61: &str = include_str!("testdata/t61.csr");
    const PLAIN: &str = include_str!("testdata/plain.csr");

    #[test]
    fn a_request_that_go_cannot_read_is_invalid() {
        let why = |pem: &str| unreadable(&STANDARD.encode(pem));
        assert_eq!(why(PLAIN), None);
        assert_eq!(why(UMLAUT).as_deref(), Some("x509: SAN dNSName is malformed"));
        assert!(why(T61).is_some_and(|why| why.starts_with("x509: invalid RDNSequence")));
    }
}
