//! I/O: listening on URLs, with TLS and client certificates, and serving connections until told to stop.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serving::http::Deadlines;
use serving::tls::{Clients, Files, Policy, Tls, TlsError};
use serving::{Connections, Http, Port};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

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
    #[error(transparent)]
    Tls(#[from] TlsError),
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

/// A bound listener.
pub struct Listener {
    socket: serving::Listener,
    tls: Option<Tls>,
    /// The URL with the port that was really bound.
    pub url: String,
}

/// Window of a stream and of a connection: what may be on the way without an answer from the peer.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A peer that says nothing for this long is asked whether it lives; upstream's value.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2 * 60 * 60);

/// The limit that all URLs of a member share.
pub fn connections() -> Arc<Connections> {
    Connections::of(Port::Etcd)
}

/// Binds one URL.
pub async fn bind(
    url: &str,
    tls: &TlsFiles,
    policy: &Policy,
    connections: &Arc<Connections>,
) -> Result<Listener, ListenError> {
    let bad = |what| ListenError::Url { url: url.to_owned(), what };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("there is no scheme"))?;
    let secure = match scheme {
        "http" | "unix" => false,
        "https" | "unixs" => true,
        _ => return Err(bad("the scheme is not known")),
    };
    let tls = if secure { Some(acceptor(url, tls, policy)?) } else { None };
    let failed = |source| ListenError::Bind { url: url.to_owned(), source };
    if scheme.starts_with("unix") {
        let path = Path::new(rest);
        // A socket that a former process left refuses everyone who connects.
        if std::os::unix::net::UnixStream::connect(path).is_err() {
            let _ = std::fs::remove_file(path);
        }
        let socket = serving::Listener::unix(connections.clone(), UnixListener::bind(path).map_err(failed)?);
        return Ok(Listener { socket, tls, url: url.to_owned() });
    }
    let address = rest.trim_end_matches('/');
    if address.contains('/') || !address.contains(':') {
        return Err(bad("it needs a host and a port and no path"));
    }
    let mut socket = Err(std::io::ErrorKind::AddrNotAvailable.into());
    for address in tokio::net::lookup_host(address).await.map_err(failed)? {
        socket = serving::Listener::bind_within(connections.clone(), address).await;
        if socket.is_ok() {
            break;
        }
    }
    let socket = socket.map_err(failed)?;
    let bound: SocketAddr = socket.local_addr().map_err(failed)?;
    let url = if address.ends_with(":0") { format!("{scheme}://{bound}") } else { format!("{scheme}://{address}") };
    Ok(Listener { socket, tls, url })
}

impl Listener {
    /// Serves until `shutdown`, then lets open requests finish.
    pub async fn serve(self, server: Server, shutdown: CancellationToken) {
        let http = Http {
            tls: self.tls,
            // Clients keep their connections for days, and a watch is one request without an end.
            deadlines: Deadlines { idle: None, body: None, ping: KEEPALIVE_EVERY, ..Deadlines::default() },
            max_streams: u32::MAX,
            windows: Some((STREAM_WINDOW, CONNECTION_WINDOW)),
            ..Http::default()
        };
        serving::serve(self.socket, http, move |request, _| server.clone().answer(request), shutdown).await;
    }
}

fn acceptor(url: &str, files: &TlsFiles, policy: &Policy) -> Result<Tls, ListenError> {
    let (Some(cert), Some(key)) = (files.cert.clone(), files.key.clone()) else {
        return Err(ListenError::NoCertificate { url: url.to_owned() });
    };
    let clients = match (&files.trusted_ca, files.client_cert_auth) {
        (None, true) => return Err(ListenError::NoClientCa),
        (None, false) => Clients::Unasked,
        // As upstream: naming an authority makes certificates necessary.
        (Some(authority), _) => Clients::OnlyOf(authority.clone()),
    };
    Ok(Tls::with_policy(Files { cert, key }, &clients, policy)?)
}
