//! The certificate of a component's own HTTPS API and the authority of its callers. I/O: reads PEM files; a renewed
//! certificate is picked up by the next connection after its file changed. Callers: the kubelet, [`crate::serving`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig as TlsConfig};
use tokio_rustls::TlsAcceptor;

/// The files of an HTTPS API.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Whose client certificates are identities.
    pub client_ca_file: Option<PathBuf>,
}

/// Which TLS is spoken: `--tls-min-version`, `--tls-cipher-suites`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// TLS 1.3 alone; 1.2 is the oldest that is spoken at all.
    pub only_13: bool,
    /// Suites of TLS 1.2 by their IANA names. Empty: all that we have. Those of 1.3 can't be chosen, as in Go.
    pub suites: Vec<String>,
}

/// How Go names suites that IANA names otherwise.
const GO_NAMES: [(&str, &str); 2] = [
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
];

static ONLY_13: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

impl Policy {
    /// Sets the oldest version by upstream's name of it.
    pub fn set_min_version(&mut self, name: &str) -> Result<(), String> {
        self.only_13 = match name {
            "VersionTLS12" => false,
            "VersionTLS13" => true,
            other => return Err(format!("{other} can't be had here: only VersionTLS12 or VersionTLS13")),
        };
        Ok(())
    }

    /// Sets the suites by upstream's names of them.
    pub fn set_suites(&mut self, names: Vec<String>) -> Result<(), String> {
        let known: Vec<&str> = suites(&rustls::crypto::aws_lc_rs::default_provider()).collect();
        let iana = |name: String| match GO_NAMES.iter().find(|(go, _)| *go == name) {
            Some((_, iana)) => (*iana).to_owned(),
            // The suites of 1.3 begin with their version there.
            None if known.contains(&name.replacen("TLS_", "TLS13_", 1).as_str()) => name.replacen("TLS_", "TLS13_", 1),
            None => name,
        };
        let names: Vec<String> = names.into_iter().map(iana).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
            let all: Vec<String> = known.iter().map(|name| name.replacen("TLS13_", "TLS_", 1)).collect();
            return Err(format!("{unknown} can't be had here: only {}", all.join(", ")));
        }
        self.suites = names;
        Ok(())
    }

    fn versions(&self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        if self.only_13 { &ONLY_13 } else { rustls::DEFAULT_VERSIONS }
    }

    fn provider(&self) -> rustls::crypto::CryptoProvider {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if !self.suites.is_empty() {
            let wanted = |name: &str| self.suites.iter().any(|s| s == name);
            provider.cipher_suites.retain(|suite| {
                suite.version() == &rustls::version::TLS13 || suite.suite().as_str().is_some_and(wanted)
            });
        }
        provider
    }
}

fn suites(provider: &rustls::crypto::CryptoProvider) -> impl Iterator<Item = &'static str> {
    provider.cipher_suites.iter().filter_map(|suite| suite.suite().as_str())
}

/// A file that cannot be read or holds something else.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// The acceptor of an API that speaks every TLS we have.
pub fn acceptor(config: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    acceptor_with(config, &Policy::default())
}

/// The acceptor of an API.
pub fn acceptor_with(config: &TlsFiles, policy: &Policy) -> Result<TlsAcceptor, TlsError> {
    let files = Files { cert: config.cert_file.clone(), key: config.key_file.clone() };
    let provider = Arc::new(policy.provider());
    let builder = TlsConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(policy.versions()).map_err(|e| TlsError(e.to_string()))?;
    let builder = match &config.client_ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for cert in certificates(path)? {
                roots.add(cert).map_err(|e| TlsError(format!("{}: {e}", path.display())))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| TlsError(format!("{}: {e}", path.display())))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let first = files.load()?;
    let resolver = Resolver { changed: Mutex::new((files.modified(), first)), files };
    let mut tls = builder.with_cert_resolver(Arc::new(resolver));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

fn file_error(path: &Path, error: rustls::pki_types::pem::Error) -> TlsError {
    TlsError(format!("{}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|e| file_error(path, e))?;
    all.collect::<Result<_, _>>().map_err(|e| file_error(path, e))
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn modified(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.cert).and_then(|m| m.modified()).ok()
    }

    fn load(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| file_error(&self.key, e))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let made = CertifiedKey::from_der(chain, key, &provider);
        made.map(Arc::new).map_err(|e| TlsError(format!("{}: {e}", self.cert.display())))
    }
}

#[derive(Debug)]
struct Resolver {
    files: Files,
    changed: Mutex<(Option<SystemTime>, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut held = self.changed.lock();
        let modified = self.files.modified();
        if modified != held.0
            && let Ok(fresh) = self.files.load()
        {
            *held = (modified, fresh);
        }
        Some(held.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_and_versions_are_named_as_upstream_names_them() {
        let mut policy = Policy::default();
        let wanted = ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_AES_128_GCM_SHA256"];
        policy.set_suites(wanted.map(str::to_owned).into()).unwrap();
        let provider = policy.provider();
        let old: Vec<&str> = suites(&provider).filter(|name| !name.starts_with("TLS13_")).collect();
        assert_eq!(old, ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]);
        assert!(provider.cipher_suites.len() > 1, "those of TLS 1.3 can't be taken away");
        let error = policy.set_suites(vec!["TLS_RSA_WITH_AES_128_CBC_SHA".into()]).unwrap_err();
        assert!(error.starts_with("TLS_RSA_WITH_AES_128_CBC_SHA can't be had here: only TLS_AES_"), "{error}");
        assert!(policy.set_min_version("VersionTLS10").is_err());
        policy.set_min_version("VersionTLS13").unwrap();
        assert_eq!(policy.versions().len(), 1);
    }
}
