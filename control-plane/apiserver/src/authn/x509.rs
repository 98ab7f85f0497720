//! Client certificates: the common name is the user, organisations are groups.

use std::sync::Arc;

use async_trait::async_trait;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticated, Authenticator, AuthnError, Credentials, UserInfo};

/// Accepts certificates that chain to one of a set of CAs.
#[derive(Debug)]
pub struct X509 {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl X509 {
    /// `authorities`: certificates of `--client-ca-file`. The error says what is wrong with them.
    pub fn new(authorities: &[CertificateDer<'static>]) -> Result<X509, String> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone()).map_err(|error| error.to_string())?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(X509 { verifier: verifier.map_err(|error| error.to_string())? })
    }
}

/// The identity that a certificate's subject names.
pub fn identity(certificate: &CertificateDer<'_>) -> Result<UserInfo, AuthnError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| AuthnError(format!("client certificate cannot be read: {error}")))?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(AuthnError("client certificate without a common name".to_owned()));
    }
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    Ok(UserInfo { name, groups, ..UserInfo::default() })
}

#[async_trait]
impl Authenticator for X509 {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let Some((leaf, intermediates)) = credentials.certificates.split_first() else { return Ok(None) };
        self.verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(|error| AuthnError(format!("client certificate refused: {error}")))?;
        Ok(Some(Authenticated { user: identity(leaf)?, ..Authenticated::default() }))
    }
}
