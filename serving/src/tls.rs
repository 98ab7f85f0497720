//! TLS of servers and clients: certificates come from PEM files and are read again when these change, while
//! connections go on. I/O: reads the files. Callers: whoever listens, and clients that show a certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, InconsistentKeys, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::clients::{self, Signed};
pub use crate::policy::Policy;
use crate::reload::Reloaded;
use crate::v1;

/// A file that can't be read or holds something else.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TlsError {
    /// Of the file at fault; of a pair, the certificate's.
    pub path: PathBuf,
    /// What is wrong with it, or why it couldn't be read.
    pub reason: String,
}

fn error(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> TlsError {
    move |reason| TlsError { path: path.to_owned(), reason: reason.to_string() }
}

/// A certificate with its chain, and its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// PEM: the certificate, then what it was signed by, the root left out.
    pub cert: PathBuf,
    /// PEM: the key of the first certificate.
    pub key: PathBuf,
}

/// Certificates of a PEM file, in order; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(list) if list.is_empty() => Err(error(path)(&"there is no certificate in it")),
        Ok(list) => Ok(list),
        Err(why) => Err(error(path)(&why)),
    }
}

/// The authorities of a PEM file.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|why| error(path)(&why))?;
    }
    Ok(roots)
}

/// A certificate and key that are read again when their files change: upstream's `DynamicCertKeyPairContent`.
#[derive(Debug)]
pub struct CertKeyPair(Reloaded<Arc<CertifiedKey>>);

impl CertKeyPair {
    /// Reads the pair; fails when one is missing, is no PEM, or they don't belong together.
    pub fn load(files: Files) -> Result<Arc<CertKeyPair>, TlsError> {
        let pair = Reloaded::new(vec![files.cert.clone(), files.key.clone()], move || files.load())?;
        Ok(Arc::new(CertKeyPair(pair)))
    }
}

impl Files {
    fn load(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|why| error(&self.key)(&why))?;
        certified(chain, key).map(Arc::new).map_err(|why| error(&self.key)(&why))
    }
}

/// A certificate with its key, which must be one pair. The library can't look into one of X.509 v1, and it is a client's
/// as well as any.
fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, rustls::Error> {
    let provider = aws_lc_rs::default_provider();
    let Some(public) = chain.first().and_then(|leaf| v1::key(leaf)) else {
        return CertifiedKey::from_der(chain, key, &provider);
    };
    let key = provider.key_provider.load_private_key(key)?;
    match key.public_key() {
        Some(own) if own.as_ref() != public => Err(InconsistentKeys::KeyMismatch.into()),
        _ => Ok(CertifiedKey::new(chain, key)),
    }
}

impl ResolvesServerCert for CertKeyPair {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

impl ResolvesClientCert for CertKeyPair {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let pair = self.0.current();
        pair.key.choose_scheme(schemes).is_some().then_some(pair)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whose certificates a server asks its clients for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// Nobody's.
    Unasked,
    /// Anybody's whose holder has the key: whose it is finds out who authenticates requests, so that a certificate of
    /// a foreign authority ends in 401 and not in a broken handshake.
    Anyone,
    /// Those of the authorities in this file, which is read again when it changes; clients without one are served, too.
    Of(PathBuf),
    /// The same, and clients without one are refused.
    OnlyOf(PathBuf),
}

/// TLS of a port. Its configuration is made anew when the file of authorities changes, so that no session of a client of
/// an authority that is gone can be resumed.
#[derive(Clone)]
pub struct Tls {
    config: Arc<Reloaded<Arc<ServerConfig>>>,
    checks_clients: bool,
}

impl Tls {
    /// Reads the files; every TLS that we have is spoken.
    pub fn new(files: Files, clients: &Clients) -> Result<Tls, TlsError> {
        Tls::with_policy(files, clients, &Policy::default())
    }

    /// Reads the files.
    pub fn with_policy(files: Files, asked: &Clients, policy: &Policy) -> Result<Tls, TlsError> {
        let cert = files.cert.clone();
        let pair = CertKeyPair::load(files)?;
        let authorities: Vec<PathBuf> = match asked {
            Clients::Of(path) | Clients::OnlyOf(path) => vec![path.clone()],
            Clients::Unasked | Clients::Anyone => Vec::new(),
        };
        let checks_clients = !authorities.is_empty();
        let (asked, policy) = (asked.clone(), policy.clone());
        let make = move || server(&cert, &pair, &asked, &policy);
        Ok(Tls { config: Arc::new(Reloaded::new(authorities, make)?), checks_clients })
    }

    /// Whether a certificate that a client shows was checked in the handshake.
    pub(crate) fn checks_clients(&self) -> bool {
        self.checks_clients
    }

    pub(crate) fn accept<I>(&self, stream: I) -> tokio_rustls::Accept<I>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(self.config.current()).accept(stream)
    }
}

/// `cert` is the file that an error of none of the others is about.
fn server(
    cert: &Path,
    pair: &Arc<CertKeyPair>,
    asked: &Clients,
    policy: &Policy,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(policy.provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(policy.versions());
    let builder = builder.map_err(|why| error(cert)(&why))?;
    let builder = match asked {
        Clients::Unasked => builder.with_no_client_auth(),
        Clients::Anyone => builder.with_client_cert_verifier(Arc::new(AnyHolder(provider))),
        Clients::Of(path) | Clients::OnlyOf(path) => {
            let optional = matches!(asked, Clients::Of(_));
            let verifier = clients::verifier(certificates(path)?, provider, optional);
            builder.with_client_cert_verifier(verifier.map_err(|why| error(path)(&why))?)
        }
    };
    let mut config = builder.with_cert_resolver(pair.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client that checks servers against these authorities, or not at all when there are none, and shows this
/// certificate, as it is at each handshake.
pub fn client(roots: Option<RootCertStore>, pair: Option<Arc<CertKeyPair>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyHolder(provider))),
    };
    let Some(pair) = pair else { return Ok(builder.with_no_client_auth()) };
    let mut config = builder.with_client_cert_resolver(pair);
    // A resumed session stands for the certificate of its first handshake, which ends one day.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes any certificate, of a client or a server, whose holder has the key.
#[derive(Debug)]
struct AnyHolder(Arc<CryptoProvider>);

impl AnyHolder {
    fn tls12(&self, message: &[u8], cert: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Signed {
        clients::signed_12(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn tls13(&self, message: &[u8], cert: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Signed {
        clients::signed_13(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for AnyHolder {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        self.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        self.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for AnyHolder {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        self.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        self.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
