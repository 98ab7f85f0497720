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

/// A file that cannot be read or holds something else.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// The acceptor of an API.
pub fn acceptor(config: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let files = Files { cert: config.cert_file.clone(), key: config.key_file.clone() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = TlsConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| TlsError(e.to_string()))?;
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
