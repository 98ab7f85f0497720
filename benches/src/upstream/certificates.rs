//! A certificate authority for upstream's control plane, and kubeconfigs of its users.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use serde_json::json;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub key: String,
}

/// A certificate, its key and the public half of that, as PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
    pub public: String,
}

impl Authority {
    pub fn new() -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = params("bench-ca", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (pem, secret) = (params.self_signed(&key)?.pem(), key.serialize_pem());
        Ok(Authority { issuer: Issuer::new(params, key), pem, key: secret })
    }

    /// A certificate for a user, that also serves on loopback.
    pub fn pair(&self, user: &str, group: Option<&str>) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let mut params = params(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names =
            vec![SanType::DnsName("localhost".try_into()?), SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { cert, key: key.serialize_pem(), public: key.public_key_pem() })
    }

    /// A kubeconfig for a user of the server.
    pub fn kubeconfig(&self, server: &str, user: &str, group: Option<&str>) -> Result<String> {
        let pair = self.pair(user, group)?;
        let base64 = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": server, "certificate-authority-data": base64(&self.pem)}}],
            "users": [{"name": "bench", "user": {
                "client-certificate-data": base64(&pair.cert), "client-key-data": base64(&pair.key)}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        Ok(config.to_string())
    }
}

fn params(user: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, user);
    params
}
