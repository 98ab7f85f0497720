//! What proves that whoever made a PodCertificateRequest has the key: a PKCS#10 request, signed by it. Pure. Called when
//! such a request is judged, and again when its certificate is.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::{FieldError, Path};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::check::Errors;
use crate::value::text;

/// Longest request, in bytes.
const LIMIT: usize = 10 * 1024;
const EC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";
/// How requests with a P-521 key are signed; the reader of certificates knows none of these.
const P521_SIGNATURES: [(&str, &dyn VerificationAlgorithm); 3] = [
    ("1.2.840.10045.4.3.2", &signature::ECDSA_P521_SHA256_ASN1),
    ("1.2.840.10045.4.3.3", &signature::ECDSA_P521_SHA384_ASN1),
    ("1.2.840.10045.4.3.4", &signature::ECDSA_P521_SHA512_ASN1),
];

fn bytes(spec: &Value) -> Vec<u8> {
    STANDARD.decode(text(spec, "stubPKCS10Request")).unwrap_or_default()
}

/// The public key of the request, as certificates hold it.
pub(super) fn public_key(spec: &Value) -> Option<Vec<u8>> {
    let der = bytes(spec);
    let (_, request) = X509CertificationRequest::from_der(&der).ok()?;
    Some(request.certification_request_info.subject_pki.raw.to_vec())
}

/// The request is there, its key of a type that is known, its signature that key's.
pub(super) fn check(errors: &mut Errors, path: Path, spec: &Value) {
    let der = bytes(spec);
    if der.is_empty() {
        errors.push(FieldError::required(path, "must not be empty"));
        return;
    }
    if der.len() > LIMIT {
        errors.push(FieldError::too_long(path, LIMIT as i64));
        return;
    }
    let mut wrong = |message: &str| errors.push(FieldError::invalid(path, text(spec, "stubPKCS10Request"), message));
    let Some(request) = X509CertificationRequest::from_der(&der).ok().filter(|(rest, _)| rest.is_empty()) else {
        return wrong("must be a valid PKCS#10 certificate request");
    };
    let request = request.1;
    if let Err(message) = known(&request.certification_request_info.subject_pki) {
        return wrong(message);
    }
    if !signed(&request) {
        wrong("signature does not match the public key of the request");
    }
}

fn curve(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    Some(key.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string())
}

fn known(key: &SubjectPublicKeyInfo<'_>) -> Result<(), &'static str> {
    match (key.algorithm.algorithm.to_id_string().as_str(), key.parsed()) {
        (ED25519, _) => Ok(()),
        (EC, _) => match curve(key).as_deref() {
            Some(P256 | P384 | P521) => Ok(()),
            _ => Err("elliptic public keys must use curve P256, P384, or P521"),
        },
        (_, Ok(PublicKey::RSA(rsa))) => match rsa.key_size() {
            3072 | 4096 => Ok(()),
            _ => Err("RSA keys must have modulus size 3072 or 4096"),
        },
        _ => Err("unknown public key type; supported types are Ed25519, ECDSA, and RSA"),
    }
}

fn signed(request: &X509CertificationRequest<'_>) -> bool {
    let info = &request.certification_request_info;
    if curve(&info.subject_pki).as_deref() != Some(P521) {
        return request.verify_signature().is_ok();
    }
    let how = request.signature_algorithm.algorithm.to_id_string();
    let Some((_, algorithm)) = P521_SIGNATURES.iter().find(|(id, _)| *id == how) else { return false };
    let key = UnparsedPublicKey::new(*algorithm, &info.subject_pki.subject_public_key.data);
    key.verify(info.raw, &request.signature_value.data).is_ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};
    use serde_json::json;

    /// The spec of a request for the key.
    pub(in super::super) fn spec(key: &KeyPair) -> Value {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        json!({"stubPKCS10Request": STANDARD.encode(params.serialize_request(key).unwrap().der())})
    }

    fn said(spec: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&mut errors, Path::root("stub"), spec);
        errors.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn requests_are_signed_by_keys_of_known_types() {
        let made = [
            KeyPair::generate_for(&rcgen::PKCS_ED25519),
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_3072),
        ];
        for key in made {
            let spec = spec(&key.unwrap());
            assert_eq!(said(&spec), [""; 0]);
            let mut der = bytes(&spec);
            *der.last_mut().unwrap() ^= 1;
            let why = said(&json!({"stubPKCS10Request": STANDARD.encode(der)}));
            assert!(why[0].contains("signature does not match"), "{why:?}");
        }
        let short = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        assert!(said(&spec(&short))[0].contains("modulus size 3072 or 4096"));
        assert_eq!(said(&json!({})), ["stub: Required value: must not be empty"]);
        assert!(said(&json!({"stubPKCS10Request": "eA=="}))[0].contains("must be a valid PKCS#10"));
    }
}
