//! Certificates that another host's CA signs: a key is made here and stays here, a CertificateSigningRequest goes to the
//! API server, and what comes back is waited for. I/O: asks the API server.
//! Callers: a machine that joins, for its first certificate; `cluster::renewal`, for the next ones.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::digest;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest as Csr, CertificateSigningRequestSpec};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};

use crate::fault::Fault;

const PREFIX: &str = "node-csr-";
/// Hexadecimal digits of a request's name: what it says once more is the same request.
const NAME: usize = 40;

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    KubeletClient,
    KubeletServing,
}

impl Signer {
    fn name(self) -> &'static str {
        match self {
            Signer::KubeletClient => "kubernetes.io/kube-apiserver-client-kubelet",
            Signer::KubeletServing => "kubernetes.io/kubelet-serving",
        }
    }

    fn usages(self) -> [&'static str; 2] {
        match self {
            Signer::KubeletClient => ["digital signature", "client auth"],
            Signer::KubeletServing => ["digital signature", "server auth"],
        }
    }
}

/// The certificate (PEM) of a node for this key. Waits up to `patience` for somebody to approve it.
pub async fn certificate(
    client: &kube::Client,
    signer: Signer,
    node: &str,
    names: Vec<SanType>,
    key: &KeyPair,
    patience: Duration,
) -> Result<String> {
    let request = request(signer, node, names, key)?;
    let name = request.metadata.name.clone().unwrap_or_default();
    let requests: Api<Csr> = Api::all(client.clone());
    match requests.create(&PostParams::default(), &request).await {
        Ok(_) => {}
        // A life before this one has asked, and was not told.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(anyhow!("asking for a certificate: {error}")),
    }
    let decided = await_condition(requests, &name, |csr: Option<&Csr>| csr.is_none_or(|csr| answer(csr).is_some()));
    let decided = tokio::time::timeout(patience, decided).await.map_err(|_| {
        Fault::failed(format!(
            "nobody has approved the request for a certificate: `kubectl certificate approve {name}`"
        ))
    })?;
    let csr = decided.context("waiting for a certificate")?.context("the request for a certificate was deleted")?;
    answer(&csr).unwrap_or_else(|| Err(anyhow!("the request for a certificate has no answer")))
}

fn request(signer: Signer, node: &str, names: Vec<SanType>, key: &KeyPair) -> Result<Csr> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::CommonName, format!("system:node:{node}"));
    (params.distinguished_name, params.subject_alt_names) = (subject, names);
    let pem = params.serialize_request(key).and_then(|request| request.pem()).context("a certificate request")?;
    let mut csr = Csr {
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: signer.name().into(),
            usages: Some(signer.usages().map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        ..Csr::default()
    };
    let said = [signer.name().as_bytes(), node.as_bytes(), &key.subject_public_key_info()].concat();
    let hex = runtime::digest::hex(digest::digest(&digest::SHA256, &said).as_ref());
    csr.metadata.name = Some(format!("{PREFIX}{}", &hex[..NAME]));
    Ok(csr)
}

/// The certificate, or why there is none; `None` while nobody has decided.
fn answer(csr: &Csr) -> Option<Result<String>> {
    let status = csr.status.as_ref()?;
    let failed = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
    if let Some(condition) = failed {
        let why = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or("without a reason");
        return Some(Err(Fault::failed(format!(
            "the request for a certificate was {}: {why}",
            condition.type_.to_lowercase()
        ))
        .into()));
    }
    let certificate = status.certificate.as_ref().filter(|bytes| !bytes.0.is_empty())?;
    Some(String::from_utf8(certificate.0.clone()).context("the certificate is no PEM"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_that_is_made_again_is_the_same() {
        let key = KeyPair::generate().expect("a key");
        let name = |signer, node| request(signer, node, vec![], &key).expect("a request").metadata.name;
        assert_eq!(name(Signer::KubeletClient, "a"), name(Signer::KubeletClient, "a"));
        assert_ne!(name(Signer::KubeletClient, "a"), name(Signer::KubeletServing, "a"));
        assert_ne!(name(Signer::KubeletClient, "a"), name(Signer::KubeletClient, "b"));
    }

    #[test]
    fn what_was_denied_says_why() {
        let csr = |status| -> Csr {
            serde_json::from_value(
                json!({"metadata": {}, "spec": {"request": "", "signerName": "s"}, "status": status}),
            )
            .expect("a request")
        };
        assert!(answer(&csr(json!({}))).is_none());
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        assert!(answer(&csr(approved)).is_none(), "approved is not signed");
        let denied =
            json!({"conditions": [{"type": "Denied", "status": "True", "message": "a node of this name lives"}]});
        let said = answer(&csr(denied)).expect("decided").expect_err("denied").to_string();
        assert_eq!(said, "the request for a certificate was denied: a node of this name lives");
        let signed = answer(&csr(json!({"certificate": "UEVN"}))).expect("decided").expect("signed");
        assert_eq!(signed, "PEM");
    }
}
