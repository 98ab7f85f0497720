//! JSON web tokens: signing and checking with ES256 and RS256, and the public keys as a JWK set.
//! I/O: reads key files.

use std::path::Path;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Longest token that is looked at; ours are below 2 KiB.
pub const MAX_TOKEN: usize = 16 << 10;

/// A signing key.
pub struct Signer {
    key: PrivateKey,
    key_id: String,
}

enum PrivateKey {
    Ec(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

/// A key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    key: PublicBytes,
    pub key_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PublicBytes {
    /// The uncompressed point.
    Ec(Vec<u8>),
    /// PKCS#1.
    Rsa { der: Vec<u8>, modulus: Vec<u8>, exponent: Vec<u8> },
}

/// Upstream's key id: the hash of the public key's SPKI form.
fn key_id(spki: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(spki))
}

impl Signer {
    /// Reads a private key in PEM: PKCS#8, PKCS#1 or SEC 1.
    pub fn from_pem(pem: &[u8]) -> Result<Signer, String> {
        Signer::from_der(&PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?)
    }

    fn from_der(private: &PrivateKeyDer<'_>) -> Result<Signer, String> {
        let (key, spki) = match private {
            PrivateKeyDer::Pkcs1(der) => rsa_pair(rsa::KeyPair::from_der(der.secret_pkcs1_der()))?,
            PrivateKeyDer::Sec1(der) => {
                ec_pair(EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_sec1_der()))?
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
                    Ok(pair) => ec_pair::<String>(Ok(pair))?,
                    Err(_) => rsa_pair(rsa::KeyPair::from_pkcs8(der))?,
                }
            }
            _ => return Err("unknown kind of private key".to_owned()),
        };
        Ok(Signer { key, key_id: key_id(&spki) })
    }

    /// The key that checks what this one signs.
    pub fn verifier(&self) -> Result<Verifier, String> {
        let spki = match &self.key {
            PrivateKey::Ec(pair) => spki_of(pair.public_key())?,
            PrivateKey::Rsa(pair) => spki_of(pair.public_key())?,
        };
        Verifier::from_spki(&spki)
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        let algorithm = match self.key {
            PrivateKey::Ec(_) => "ES256",
            PrivateKey::Rsa(_) => "RS256",
        };
        let header = json!({"alg": algorithm, "kid": self.key_id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.key {
            PrivateKey::Ec(pair) => {
                pair.sign(&random, message.as_bytes()).map_err(|error| error.to_string())?.as_ref().to_vec()
            }
            PrivateKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature)
                    .map_err(|error| error.to_string())?;
                signature
            }
        };
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn spki_of<'a, K: AsDer<PublicKeyX509Der<'a>>>(key: &K) -> Result<Vec<u8>, String> {
    key.as_der().map(|der| der.as_ref().to_vec()).map_err(|error| error.to_string())
}

fn ec_pair<E: std::fmt::Display>(pair: Result<EcdsaKeyPair, E>) -> Result<(PrivateKey, Vec<u8>), String> {
    let pair = pair.map_err(|error| format!("not a P-256 key: {error}"))?;
    let spki = spki_of(pair.public_key())?;
    Ok((PrivateKey::Ec(pair), spki))
}

fn rsa_pair<E: std::fmt::Display>(pair: Result<rsa::KeyPair, E>) -> Result<(PrivateKey, Vec<u8>), String> {
    let pair = pair.map_err(|error| format!("neither a P-256 nor an RSA key: {error}"))?;
    let spki = spki_of(pair.public_key())?;
    Ok((PrivateKey::Rsa(pair), spki))
}

impl Verifier {
    /// Every key of a PEM file: public keys, those of certificates, and the public halves of private keys, as upstream
    /// takes them. Whether a certificate is valid doesn't matter.
    pub fn read(path: &Path) -> Result<Vec<Verifier>, String> {
        Verifier::from_pem(&std::fs::read(path).map_err(|error| error.to_string())?)
    }

    /// See [`Verifier::read`].
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Verifier>, String> {
        let mut all = Vec::new();
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = block.map_err(|error| error.to_string())?;
            let key = match kind {
                SectionKind::PublicKey => Verifier::from_spki(&der)?,
                SectionKind::Certificate => {
                    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
                    Verifier::from_spki(certificate.public_key().raw)?
                }
                SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                    let private = PrivateKeyDer::from_pem(kind, der).ok_or("unknown kind of private key")?;
                    Signer::from_der(&private)?.verifier()?
                }
                // Such as the parameters that OpenSSL writes before a key.
                _ => continue,
            };
            if !all.contains(&key) {
                all.push(key);
            }
        }
        if all.is_empty() {
            Err("there is no key in it: neither a public nor a private one, nor a certificate".to_owned())
        } else {
            Ok(all)
        }
    }

    fn from_spki(spki: &[u8]) -> Result<Verifier, String> {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).map_err(|error| error.to_string())?;
        let bits = parsed.subject_public_key.data.to_vec();
        let key = match parsed.parsed().map_err(|error| error.to_string())? {
            PublicKey::EC(_) if bits.len() == 65 => PublicBytes::Ec(bits),
            PublicKey::EC(_) => return Err("only P-256 keys are supported".to_owned()),
            PublicKey::RSA(rsa) => {
                let trim = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
                PublicBytes::Rsa { modulus: trim(rsa.modulus), exponent: trim(rsa.exponent), der: bits }
            }
            _ => return Err("neither a P-256 nor an RSA key".to_owned()),
        };
        Ok(Verifier { key, key_id: key_id(spki) })
    }

    fn algorithm(&self) -> &'static str {
        match self.key {
            PublicBytes::Ec(_) => "ES256",
            PublicBytes::Rsa { .. } => "RS256",
        }
    }

    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            PublicBytes::Ec(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            PublicBytes::Rsa { der, .. } => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(message, signature).is_ok()
            }
        }
    }

    fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.key {
            PublicBytes::Ec(point) => json!({
                "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
                "x": text(&point[1..33]), "y": text(&point[33..]),
            }),
            PublicBytes::Rsa { modulus, exponent, .. } => json!({
                "use": "sig", "kty": "RSA", "kid": self.key_id, "alg": "RS256",
                "n": text(modulus), "e": text(exponent),
            }),
        }
    }
}

/// The JWK set of keys.
pub fn jwks(keys: &[Verifier]) -> Value {
    json!({"keys": keys.iter().map(Verifier::jwk).collect::<Vec<_>>()})
}

/// Claims of a token, without any check: to find out whose it claims to be.
pub fn peek(token: &str) -> Option<Value> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// Claims of a token that one of the keys signed. Times and audiences are not looked at.
pub fn verify(token: &str, keys: &[Verifier]) -> Result<Value, &'static str> {
    let (message, signature) = token.rsplit_once('.').ok_or("not a JWT")?;
    let (header, claims) = message.split_once('.').ok_or("not a JWT")?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "not a JWT");
    let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| "not a JWT")?;
    let signature = decode(signature)?;
    let key_id = header["kid"].as_str().unwrap_or_default();
    let candidates = keys
        .iter()
        .filter(|key| (key_id.is_empty() || key.key_id == key_id) && header["alg"].as_str() == Some(key.algorithm()));
    for key in candidates {
        if key.accepts(message.as_bytes(), &signature) {
            return serde_json::from_slice(&decode(claims)?).map_err(|_| "not a JWT");
        }
    }
    Err("no key of this cluster signed it")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh P-256 key in PEM.
    pub fn key() -> String {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("key");
        let der = pair.to_pkcs8v1().expect("der");
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }

    #[test]
    fn keys_are_read_out_of_certificates_and_beside_each_other() {
        let pair = || rcgen::KeyPair::generate().expect("a key");
        let (first, second, third) = (pair(), pair(), pair());
        let certificate = rcgen::CertificateParams::default().self_signed(&first).expect("a certificate").pem();
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let file = [&certificate, parameters, &second.public_key_pem(), &third.serialize_pem(), &certificate].concat();
        let keys = Verifier::from_pem(file.as_bytes()).expect("keys");
        assert_eq!(keys.len(), 3, "one key once");
        for (key, pair) in keys.iter().zip([&first, &second, &third]) {
            let signer = Signer::from_pem(pair.serialize_pem().as_bytes()).expect("a signer");
            let token = signer.sign(&json!({"sub": "x"})).expect("a token");
            assert!(verify(&token, std::slice::from_ref(key)).is_ok());
        }
        for none in ["", parameters, "text"] {
            let why = Verifier::from_pem(none.as_bytes()).expect_err("no key");
            assert!(why.starts_with("there is no key in it"), "{why}");
        }
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        let signer = Signer::from_pem(key().as_bytes()).expect("key");
        let keys = [signer.verifier().expect("public")];
        let token = signer.sign(&json!({"sub": "x"})).expect("token");
        assert_eq!(verify(&token, &keys), Ok(json!({"sub": "x"})));
        let other = Signer::from_pem(key().as_bytes()).expect("key");
        assert!(verify(&other.sign(&json!({"sub": "x"})).expect("token"), &keys).is_err());
        let forged = token.replacen('.', ".e30", 1);
        assert!(verify(&forged, &keys).is_err());
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(verify(&format!("{none}.e30."), &keys).is_err());
        assert_eq!(jwks(&keys)["keys"][0]["crv"], "P-256");
    }
}
