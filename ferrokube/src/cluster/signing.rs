//! Signing on behalf of the controller manager: tokens kept in Secrets, and approved certificate requests. The keys
//! stay here; the controllers see traits.

use std::path::Path;

use anyhow::{Context, Result};
use apiserver::authn::jwt::Signer;
use controller_manager::config::{CertificateSigner, SignRequest, TokenSigner};
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};

use crate::fault::Fault;

/// The key of `--service-account-private-key-file`: every form that the API server signs with.
pub struct TokenKey(Signer);

impl TokenKey {
    pub fn read(path: &Path) -> Result<TokenKey> {
        let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
        let signer = Signer::from_pem(&pem).map_err(|why| Fault::failed(format!("{}: {why}", path.display())))?;
        Ok(TokenKey(signer))
    }
}

impl TokenSigner for TokenKey {
    fn sign(&self, claims: &serde_json::Value) -> Result<String, String> {
        self.0.sign(claims)
    }
}

/// The cluster's CA, signing what the certificate controllers have approved.
pub struct CaSigner {
    issuer: Issuer<'static, KeyPair>,
}

/// Reads `--cluster-signing-cert-file` and its key.
pub fn read_ca_signer(cert: &Path, key: &Path) -> Result<CaSigner> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let pair = KeyPair::from_pem(&read(key)?).with_context(|| key.display().to_string())?;
    let issuer = Issuer::from_ca_cert_pem(&read(cert)?, pair).with_context(|| cert.display().to_string())?;
    Ok(CaSigner { issuer })
}

impl CertificateSigner for CaSigner {
    fn sign(&self, request: &SignRequest<'_>) -> Result<String, String> {
        let pem = std::str::from_utf8(request.request).map_err(|e| e.to_string())?;
        let mut csr = CertificateSigningRequestParams::from_pem(pem).map_err(|e| e.to_string())?;
        let now = time::OffsetDateTime::now_utc();
        csr.params.not_before = now - time::Duration::minutes(5);
        csr.params.not_after = now + request.expiration;
        csr.params.is_ca = rcgen::IsCa::ExplicitNoCa;
        csr.params.key_usages = request.usages.iter().filter_map(|u| key_usage(u)).collect();
        csr.params.extended_key_usages = request.usages.iter().filter_map(|u| extended_usage(u)).collect();
        csr.signed_by(&self.issuer).map(|cert| cert.pem()).map_err(|e| e.to_string())
    }
}

fn key_usage(name: &str) -> Option<KeyUsagePurpose> {
    match name {
        "signing" | "digital signature" => Some(KeyUsagePurpose::DigitalSignature),
        "content commitment" => Some(KeyUsagePurpose::ContentCommitment),
        "key encipherment" => Some(KeyUsagePurpose::KeyEncipherment),
        "key agreement" => Some(KeyUsagePurpose::KeyAgreement),
        "data encipherment" => Some(KeyUsagePurpose::DataEncipherment),
        _ => None,
    }
}

fn extended_usage(name: &str) -> Option<ExtendedKeyUsagePurpose> {
    match name {
        "any" => Some(ExtendedKeyUsagePurpose::Any),
        "server auth" => Some(ExtendedKeyUsagePurpose::ServerAuth),
        "client auth" => Some(ExtendedKeyUsagePurpose::ClientAuth),
        "code signing" => Some(ExtendedKeyUsagePurpose::CodeSigning),
        "email protection" => Some(ExtendedKeyUsagePurpose::EmailProtection),
        "timestamping" => Some(ExtendedKeyUsagePurpose::TimeStamping),
        "ocsp signing" => Some(ExtendedKeyUsagePurpose::OcspSigning),
        _ => None,
    }
}
