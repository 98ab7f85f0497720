//! I/O: listening on URLs, TLS with client certificates, and serving connections until told to stop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Server;

/// Why a listener could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "{url}: {what}; a listen URL looks like http://127.0.0.1:2379, https://0.0.0.0:2379 or unix:///run/etcd.sock"
    )]
    Url { url: String, what: &'static str },
    #[error("can't listen on {url}: {source}")]
    Bind { url: String, source: io::Error },
    #[error("{url} needs --cert-file and --key-file")]
    NoCertificate { url: String },
    #[error("--client-cert-auth needs --trusted-ca-file")]
    NoClientCa,
    #[error("{path}: {what}")]
    Pem { path: PathBuf, what: String },
}

/// Files of the serving certificate, and of the authority of clients.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub trusted_ca: Option<PathBuf>,
    /// Refuse clients without a certificate of that authority.
    pub client_cert_auth: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A bound listener.
pub struct Listener {
    socket: Socket,
    tls: Option<TlsAcceptor>,
    /// The URL with the port that was really bound.
    pub url: String,
}

/// Window of a stream and of a connection: what may be on the way without an answer from the peer.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A peer that says nothing for this long is asked whether it lives; upstream's values.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2 * 60 * 60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A client has this long for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Open requests have this long to finish when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after an accept that failed for want of something (descriptors, memory).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Binds one URL.
pub async fn bind(url: &str, tls: &TlsFiles) -> Result<Listener, ListenError> {
    let bad = |what| ListenError::Url { url: url.to_owned(), what };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("there is no scheme"))?;
    let secure = match scheme {
        "http" | "unix" => false,
        "https" | "unixs" => true,
        _ => return Err(bad("the scheme is not known")),
    };
    let tls = if secure { Some(acceptor(url, tls)?) } else { None };
    let failed = |source| ListenError::Bind { url: url.to_owned(), source };
    if scheme.starts_with("unix") {
        let path = Path::new(rest);
        // A socket that a former process left refuses everyone who connects.
        if std::os::unix::net::UnixStream::connect(path).is_err() {
            let _ = std::fs::remove_file(path);
        }
        let socket = Socket::Unix(UnixListener::bind(path).map_err(failed)?);
        return Ok(Listener { socket, tls, url: url.to_owned() });
    }
    let address = rest.trim_end_matches('/');
    if address.contains('/') || !address.contains(':') {
        return Err(bad("it needs a host and a port and no path"));
    }
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    let url = if address.ends_with(":0") { format!("{scheme}://{bound}") } else { format!("{scheme}://{address}") };
    Ok(Listener { socket: Socket::Tcp(socket), tls, url })
}

impl Listener {
    /// Serves until `shutdown`, then lets open requests finish.
    pub async fn serve(self, server: Server, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok(stream) => {
                    connections.spawn(connection(stream, self.tls.clone(), server.clone(), shutdown.clone()));
                }
                Err(e) => {
                    tracing::warn!(url = %self.url, error = %e, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        connections.close();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await;
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Socket::Unix(socket) => Ok(Box::new(socket.accept().await?.0)),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connection(stream: Box<dyn Stream>, tls: Option<TlsAcceptor>, server: Server, shutdown: CancellationToken) {
    let stream: Box<dyn Stream> = match tls {
        None => stream,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(e)) => return tracing::warn!(error = %e, "rejected connection"),
            Err(_) => return tracing::warn!("rejected connection: no TLS handshake in time"),
        },
    };
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let server = server.clone();
        async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(u32::MAX)
        .keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = outcome {
        tracing::debug!(error = %e, "a connection ended");
    }
}

fn pem(path: &Path) -> impl Fn(String) -> ListenError {
    move |what| ListenError::Pem { path: path.to_owned(), what }
}

fn acceptor(url: &str, files: &TlsFiles) -> Result<TlsAcceptor, ListenError> {
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else {
        return Err(ListenError::NoCertificate { url: url.to_owned() });
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| pem(cert)(e.to_string()))?;
    let builder = match &files.trusted_ca {
        None if files.client_cert_auth => return Err(ListenError::NoClientCa),
        // As upstream: naming an authority asks for certificates.
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|e| pem(ca)(e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|e| pem(ca)(e.to_string()))?)
        }
        None => builder.with_no_client_auth(),
    };
    let resolver = Certificate::new(cert.clone(), key.clone())?;
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|e| pem(path)(e.to_string()))?;
    if read.is_empty() { Err(pem(path)("there is no certificate in it".into())) } else { Ok(read) }
}

/// The serving certificate, read anew when its file changes: it is renewed while the server runs.
#[derive(Debug)]
struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    loaded: Mutex<(Option<SystemTime>, Arc<CertifiedKey>)>,
}

impl Certificate {
    fn new(cert: PathBuf, key: PathBuf) -> Result<Certificate, ListenError> {
        let loaded = (changed(&cert), load(&cert, &key)?);
        Ok(Certificate { cert, key, loaded: Mutex::new(loaded) })
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn load(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, ListenError> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| pem(key)(e.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, private, &provider).map_err(|e| pem(cert)(e.to_string()))?;
    Ok(Arc::new(certified))
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut loaded = self.loaded.lock();
        let now = changed(&self.cert);
        if now != loaded.0 {
            match load(&self.cert, &self.key) {
                Ok(certified) => *loaded = (now, certified),
                Err(e) => tracing::warn!(error = %e, "the new certificate can't be used; the old one stays"),
            }
        }
        Some(loaded.1.clone())
    }
}
