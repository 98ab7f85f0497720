//! What a signer may put into the status of a PodCertificateRequest: one outcome, once; with `Issued` a certificate for
//! the key that was asked for, of the length that was asked for. Pure. Called on every write of the status.

use jiff::Timestamp;
use meta::{FieldError, Path, pem};
use serde_json::Value;
use x509_parser::certificate::X509Certificate;

use super::stub;
use crate::check::Errors;
use crate::value::{at, int, items, text};

/// Longest chain, in bytes.
const CHAIN_LIMIT: usize = 100 * 1024;
const SHORTEST: i64 = 3_600;
/// Renewal begins no nearer to either end of the certificate's life.
const MARGIN: i64 = 600;
const OUTCOMES: [&str; 3] = ["Issued", "Denied", "Failed"];

fn outcome(object: &Value) -> Option<&str> {
    items(object, "status.conditions").iter().map(|c| text(c, "type")).find(|kind| OUTCOMES.contains(kind))
}

/// The status without what means nothing.
fn set(object: &Value) -> Vec<(&String, &Value)> {
    let fields = at(object, "status").and_then(Value::as_object).into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null() && *value != "" && *value != &Value::Array(Vec::new())).collect()
}

/// Whether the status may become what it is now.
pub(super) fn check(request: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("status");
    let wrong = |message: &str| {
        let status = at(request, "status").cloned().unwrap_or_default();
        vec![FieldError::invalid(path, status, message)]
    };
    if set(request) == set(old) {
        return errors;
    }
    match (outcome(old), outcome(request)) {
        (Some(_), _) => wrong("immutable after PodCertificateRequest is issued, denied, or failed"),
        (None, None) => wrong("status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\""),
        (None, Some("Issued")) => {
            issued(&mut errors, path, request);
            errors
        }
        (None, Some(_)) if set(request).iter().any(|(field, _)| *field != "conditions") => {
            wrong("non-condition status fields must be empty when denying or failing the PodCertificateRequest")
        }
        (None, Some(_)) => errors,
    }
}

fn issued(errors: &mut Errors, path: Path, request: &Value) {
    let status = at(request, "status").unwrap_or(&Value::Null);
    let chain_path = path.child("certificateChain");
    let chain = text(status, "certificateChain");
    if chain.len() > CHAIN_LIMIT {
        errors.push(FieldError::too_long(chain_path, CHAIN_LIMIT as i64));
        return;
    }
    let blocks = pem::all(chain);
    let mut wrong = |message: &str| errors.push(FieldError::invalid(chain_path, chain, message));
    if blocks.is_empty() {
        return wrong("issued certificate chain must contain at least one certificate");
    }
    if blocks.iter().any(|block| block.kind != "CERTIFICATE") {
        return wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let mut certificates = Vec::new();
    for block in &blocks {
        match x509_parser::parse_x509_certificate(&block.content) {
            Ok((_, certificate)) => certificates.push(certificate),
            Err(_) => return wrong("each certificate of the chain must parse as valid X.509"),
        }
    }
    let Some(leaf) = certificates.first() else { return };
    let asked = at(request, "spec").and_then(stub::public_key);
    if asked.as_deref() != Some(leaf.public_key().raw) {
        return wrong("leaf certificate was not issued to the requested public key");
    }
    life(errors, path, request, leaf);
}

/// The times of the status are the certificate's, and it lives as long as it may.
fn life(errors: &mut Errors, path: Path, request: &Value, leaf: &X509Certificate<'_>) {
    let status = at(request, "status").unwrap_or(&Value::Null);
    let time = |field: &str| text(status, field).parse::<Timestamp>().ok().map(Timestamp::as_second);
    let (begin, end) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    for (field, real, name) in [("notBefore", begin, "NotBefore"), ("notAfter", end, "NotAfter")] {
        match time(field) {
            None => errors.push(FieldError::required(
                path.child(field),
                "must be present and consistent with the issued certificate",
            )),
            Some(said) if said != real => {
                let message = format!("must be set to the {name} time encoded in the leaf certificate");
                errors.push(FieldError::invalid(path.child(field), text(status, field), message));
            }
            Some(_) => {}
        }
    }
    let lives = end - begin;
    let most = int(request, "spec.maxExpirationSeconds").unwrap_or(i64::MAX);
    if lives < SHORTEST || lives > most {
        let message = format!("leaf certificate lifetime must be in the range [{SHORTEST}, {most}] seconds");
        errors.push(FieldError::invalid(path.child("certificateChain"), lives, message));
    }
    let refresh = path.child("beginRefreshAt");
    let range = "must be present and in the range [notbefore+10min, notafter-10min]";
    match time("beginRefreshAt") {
        None => errors.push(FieldError::required(refresh, range)),
        Some(at) if at < begin + MARGIN || at > end - MARGIN => {
            errors.push(FieldError::invalid(refresh, text(status, "beginRefreshAt"), range));
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    fn said(status: Value, old: Value) -> Vec<String> {
        let key = KeyPair::generate().unwrap();
        said_of(&key, status, old)
    }

    fn said_of(key: &KeyPair, status: Value, old: Value) -> Vec<String> {
        let mut spec = stub::tests::spec(key);
        spec["maxExpirationSeconds"] = json!(7200);
        let object = |status: Value| json!({"spec": spec, "status": status});
        check(&object(status), &object(old)).iter().map(FieldError::to_string).collect()
    }

    /// A certificate of the key from the start of 2026.
    fn chain(key: &KeyPair, hours: i64) -> String {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 1) + std::time::Duration::from_secs(hours as u64 * 3600);
        params.self_signed(key).unwrap().pem()
    }

    fn issued(chain: &str) -> Value {
        json!({"conditions": [{"type": "Issued", "status": "True"}], "certificateChain": chain,
            "notBefore": "2026-01-01T00:00:00Z", "beginRefreshAt": "2026-01-01T01:00:00Z",
            "notAfter": "2026-01-01T02:00:00Z"})
    }

    #[test]
    fn a_certificate_is_for_the_key_and_the_time_that_were_asked_for() {
        let key = KeyPair::generate().unwrap();
        let good = issued(&chain(&key, 2));
        assert_eq!(said_of(&key, good.clone(), json!({})), [""; 0]);
        let other = KeyPair::generate().unwrap();
        let mut cases = vec![
            (issued(&chain(&other, 2)), "leaf certificate was not issued to the requested public key"),
            (issued(""), "at least one certificate"),
            (issued(&pem::encode("PRIVATE KEY", b"x")), "entirely of CERTIFICATE PEM blocks"),
            (issued(&pem::encode("CERTIFICATE", b"x")), "must parse as valid X.509"),
            (issued(&chain(&key, 3)), "lifetime must be in the range [3600, 7200]"),
        ];
        for (field, words) in [
            ("notBefore", "must be set to the NotBefore time"),
            ("notAfter", "must be set to the NotAfter time"),
            ("beginRefreshAt", "in the range [notbefore+10min, notafter-10min]"),
        ] {
            let (mut late, mut none) = (good.clone(), good.clone());
            late[field] = json!("2026-01-01T05:00:00Z");
            none[field] = Value::Null;
            cases.extend([(late, words), (none, "Required value")]);
        }
        for (status, words) in cases {
            let why = said_of(&key, status, json!({}));
            assert!(why.iter().any(|text| text.contains(words)), "{words}: {why:?}");
        }
    }

    #[test]
    fn an_outcome_comes_once_and_alone() {
        let denied = json!({"conditions": [{"type": "Denied", "status": "True"}]});
        assert_eq!(said(denied.clone(), Value::Null), [""; 0]);
        assert_eq!(said(denied.clone(), denied.clone()), [""; 0]);
        assert_eq!(said(json!({"conditions": []}), Value::Null), [""; 0]);
        assert!(said(json!({}), denied.clone())[0].contains("immutable after PodCertificateRequest is issued"));
        assert!(said(json!({"certificateChain": "x"}), json!({}))[0].contains("immutable unless transitioning"));
        let mut both = denied;
        both["certificateChain"] = json!("x");
        assert!(said(both, json!({}))[0].contains("non-condition status fields must be empty"));
    }
}
