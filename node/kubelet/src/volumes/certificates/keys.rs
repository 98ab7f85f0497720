//! Keys of pods and the PKCS#10 requests that prove that the kubelet has them: signed by the key, empty otherwise. Pure,
//! but for the randomness of a key. Called when a certificate is asked for.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};

/// A key that was made, and what asks for a certificate for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// PKCS#8 as PEM.
    pub key: String,
    /// PKCS#10 as DER.
    pub request: Vec<u8>,
}

/// Makes a key by the name that the API has for its type. Takes seconds for a long RSA key.
pub fn make(kind: &str) -> Result<Made, String> {
    let key = match kind {
        "RSA3072" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        "RSA4096" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        "ECDSAP256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        "ECDSAP384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        "ECDSAP521" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        "ED25519" => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        other => return Err(format!("unknown key type {other:?}")),
    };
    let failed = |e: rcgen::Error| format!("while generating keypair: {e}");
    let key = key.map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(failed)?.der().to_vec();
    Ok(Made { key: meta::pem::encode("PRIVATE KEY", &key.serialize_der()), request })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_key_signs_its_request() {
        // The long RSA keys take seconds each: one of them is enough.
        for kind in ["RSA3072", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"] {
            let made = make(kind).unwrap();
            let key = KeyPair::from_pem(&made.key).unwrap();
            let public = rcgen::PublicKeyData::subject_public_key_info(&key);
            let place = made.request.windows(public.len()).position(|window| window == public);
            // An outer and an inner sequence, the version, and a subject of no parts; then the key.
            assert!(place.is_some_and(|at| at <= 13), "{kind}: only the key is told: {place:?}");
        }
        assert_eq!(make("RSA1024").unwrap_err(), "unknown key type \"RSA1024\"");
    }
}
