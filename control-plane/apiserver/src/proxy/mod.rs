//! Requests that end somewhere else: kubelets (logs, exec, attach, port-forward), pods, services and nodes behind
//! /proxy. I/O: connects and copies bytes.
//!
//! Bodies stream in both directions. An upgrade (WebSocket, SPDY) is passed through: the backend's 101 goes to the
//! client and from then on bytes are copied. Redirects of backends are never followed.

pub mod html;
pub mod page;
pub mod target;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use meta::{Reason, Status};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub use target::{Backend, Trust};

use crate::audit::trail::End;
use crate::config::Config;
use crate::error::Error;
use crate::http::body::{Body, RequestBody};
use crate::http::call::Call;
use crate::http::tls;

/// How long a backend may take to accept a connection and finish its handshake.
const CONNECT: Duration = Duration::from_secs(30);

/// Headers that belong to one connection and are not passed on.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// A byte stream to a backend.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How backends are reached: TCP, unless the embedder knows better (another network namespace, a tunnel, a test).
#[async_trait]
pub trait Dialer: Send + Sync {
    async fn dial(&self, host: &str, port: u16) -> std::io::Result<Box<dyn Stream>>;
}

/// Bytes of an answer to [`Proxy::ask`] that are read: health checks say little.
const MAX_ASKED: usize = 64 << 10;

/// Plain TCP.
pub struct Tcp;

#[async_trait]
impl Dialer for Tcp {
    async fn dial(&self, host: &str, port: u16) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Reaches backends.
pub struct Proxy {
    pub dialer: Arc<dyn Dialer>,
    kubelet: Arc<ClientConfig>,
    /// For pods and services behind https: nothing is known about their certificates.
    anyone: Arc<ClientConfig>,
}

impl Proxy {
    /// Reads the files named for kubelets.
    pub fn new(config: &Config, dialer: Arc<dyn Dialer>) -> Result<Proxy, Error> {
        Ok(Proxy { dialer, kubelet: tls::kubelet_client(config)?, anyone: tls::trusting_client()? })
    }

    async fn connect(&self, backend: &Backend) -> Result<Box<dyn Stream>, Status> {
        let Backend { host, port, trust, .. } = backend;
        let unreachable = |why: String| {
            let message = match trust {
                Trust::Kubelet => {
                    return Status::internal(format!("error dialing backend: dial tcp {host}:{port}: {why}"));
                }
                _ => format!("error trying to reach service: dial tcp {host}:{port}: {why}"),
            };
            Status::failure(503, Reason::ServiceUnavailable, message)
        };
        let work = async {
            let stream = self.dialer.dial(host, *port).await.map_err(|error| unreachable(words(&error)))?;
            let config = match trust {
                Trust::Plain => return Ok(stream),
                Trust::Kubelet => self.kubelet.clone(),
                Trust::Anyone => self.anyone.clone(),
            };
            let name = ServerName::try_from(host.clone()).map_err(|error| unreachable(error.to_string()))?;
            let stream = TlsConnector::from(config).connect(name, stream).await;
            let stream: Box<dyn Stream> = Box::new(stream.map_err(|error| unreachable(error.to_string()))?);
            Ok(stream)
        };
        match tokio::time::timeout(CONNECT, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unreachable("i/o timeout".to_owned())),
        }
    }

    /// Asks something on this host over HTTPS and gives its text; the error says why there is none.
    pub async fn ask(&self, host: &str, port: u16, path: &str) -> Result<String, String> {
        let dialed = self.dialer.dial(host, port).await;
        let stream = dialed.map_err(|error| format!("dial tcp {host}:{port}: {}", words(&error)))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(self.anyone.clone()).connect(name, stream).await;
        let stream = TokioIo::new(stream.map_err(|error| error.to_string())?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Body>(stream).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let request = Request::get(path).header(header::HOST, format!("{host}:{port}")).body(Body::empty());
        let response = sender.send_request(request.map_err(|error| error.to_string())?).await;
        let response = response.map_err(|error| error.to_string())?;
        let code = response.status();
        let limited = http_body_util::Limited::new(response.into_body(), MAX_ASKED);
        let text = limited.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        if code.is_success() { Ok(text) } else { Err(format!("HTTP status {}: {text}", code.as_u16())) }
    }

    /// Sends the request on and answers with what comes back.
    pub async fn forward(&self, call: &Call, backend: &Backend, body: RequestBody) -> Result<Response<Body>, Status> {
        // A log over WebSocket is this server's own doing.
        let passes = wants_upgrade(&call.headers) && call.info.subresource != "log";
        let upgrade = passes.then(|| call.upgrade.lock().take()).flatten();
        let stream = self.connect(backend).await?;
        let broken = |error: hyper::Error| {
            let why = format!("error trying to reach service: {error}");
            Status::failure(503, Reason::ServiceUnavailable, why)
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, RequestBody>(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a backend ended");
            }
        });
        let request = request(call, backend, body, upgrade.is_some())?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switched(response, upgrade, call.trail.as_ref().map(End::of));
        }
        let (mut parts, body) = response.into_parts();
        strip(&mut parts.headers);
        Ok(Response::from_parts(parts, Body::forward(body)))
    }
}

/// What upstream says of a failed dial: people look for these words.
fn words(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let words = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    words.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

fn strip(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn request(call: &Call, backend: &Backend, body: RequestBody, upgrade: bool) -> Result<Request<RequestBody>, Status> {
    let uri: Uri = backend.path_and_query.parse().map_err(|error| Status::bad_request(format!("bad path: {error}")))?;
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    *headers = call.headers.clone();
    let kept = headers.get(header::UPGRADE).cloned().filter(|_| upgrade);
    strip(headers);
    // The caller's credentials are for this server only.
    headers.remove(header::AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    let host = match backend.host.contains(':') {
        true => format!("[{}]:{}", backend.host, backend.port),
        false => format!("{}:{}", backend.host, backend.port),
    };
    let host = HeaderValue::from_str(&host).map_err(|error| Status::bad_request(error.to_string()))?;
    headers.insert(header::HOST, host);
    for (name, value) in &backend.forwarded {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    if let Some(protocol) = kept {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    Ok(request)
}

/// Joins the two upgraded connections; the 101 of the backend is the answer.
fn switched(
    mut response: Response<hyper::body::Incoming>,
    client: Option<OnUpgrade>,
    trail: Option<End>,
) -> Result<Response<Body>, Status> {
    let Some(client) = client else {
        return Err(Status::failure(502, Reason::InternalError, "the backend switched protocols unasked"));
    };
    let backend = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        // The audit log hears of the end when both are done.
        let _trail = trail;
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "an upgrade failed"),
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
            tracing::debug!(%error, "an upgraded connection ended");
        }
    });
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, Body::empty()))
}
