//! HTTP/1.1 and HTTP/2 on a listener, with or without TLS, until shutdown. I/O: sockets, tokio's clock. Callers: the
//! API server, the kubelet, etcd, the container runtime, everybody's pages.
//!
//! Every wait for a client has a deadline: its handshake, its first request, its next one, each piece of a body. What
//! a handler does with a request has none here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::stream::Filtered;
use crate::body::{Answer, Body, BoxError};
use crate::head;
use crate::host;
use crate::listener::{Connection, Listener};
use crate::refusals::Refusals;
use crate::table::Slot;
use crate::tls::Tls;
use crate::x509::Subject;

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// Until the head of the first request has come.
    pub header: Duration,
    /// Until the next request; upstream's value is the same. None: for ever.
    pub idle: Option<Duration>,
    /// Between two pieces of a body. None: for ever, where bodies are streams that last.
    pub body: Option<Duration>,
    /// An HTTP/2 peer that says nothing for so long is asked whether it lives, and has [`PING_TIMEOUT`]: one that
    /// doesn't read its answers doesn't answer that either.
    pub ping: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(32),
            idle: Some(Duration::from_secs(90)),
            body: Some(Duration::from_secs(60)),
            ping: Duration::from_secs(60),
        }
    }
}

/// How long an answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams of one HTTP/2 connection: upstream's limit.
pub const MAX_STREAMS: u32 = 100;
/// Bytes of the head of a request: upstream's limit.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// Streams that a client may reset before they were taken; then the connection ends (rapid reset). The library's
/// default, held here so that it can't fall away.
const MAX_PENDING_RESETS: usize = 20;
/// An idle connection that is closed is told so, and has this long to take it.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How long running requests may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How a port speaks HTTP.
#[derive(Clone)]
pub struct Http {
    /// None: plain HTTP.
    pub tls: Option<Tls>,
    /// How long clients may take for each part.
    pub deadlines: Deadlines,
    /// Bytes of a request's head; a longer one is refused.
    pub max_header_bytes: usize,
    /// Requests of one HTTP/2 connection at the same time.
    pub max_streams: u32,
    /// Bytes of a stream and of a connection that may be on the way; none: HTTP/2's own.
    pub windows: Option<(u32, u32)>,
    /// Called when a handshake fails.
    pub refused: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            tls: None,
            deadlines: Deadlines::default(),
            max_header_bytes: MAX_HEADER_BYTES,
            max_streams: MAX_STREAMS,
            windows: None,
            refused: None,
        }
    }
}

impl Http {
    /// Pages of a component: what asks for them is short.
    pub fn pages(tls: Option<Tls>) -> Http {
        const HEAD: usize = 64 << 10;
        Http { tls, max_header_bytes: HEAD, ..Http::default() }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// None over a unix socket.
    pub address: Option<SocketAddr>,
    /// What it showed in the handshake, its own certificate first.
    pub certificates: Arc<[CertificateDer<'static>]>,
    subject: Option<Subject>,
    slot: Weak<Slot>,
}

impl Peer {
    /// Whom the certificate names that was checked in the handshake, as long as it is valid.
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref().filter(|subject| subject.is_valid(SystemTime::now()))
    }

    /// A request of this connection was authenticated: it is no stranger any more.
    pub fn know(&self) {
        if let Some(slot) = self.slot.upgrade() {
            slot.know();
        }
    }
}

/// Answers requests until shutdown, then lets running ones finish.
pub async fn serve<S, F, B>(listener: Listener, http: Http, service: S, shutdown: CancellationToken)
where
    S: Fn(Request<Body>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: HttpBody<Data = Bytes> + Default + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (tasks, told) = (TaskTracker::new(), Arc::new(Refusals::default()));
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            () = shutdown.cancelled() => break,
        };
        tasks.spawn(attend(connection, http.clone(), service.clone(), told.clone(), shutdown.clone()));
    }
    drop(listener);
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}

async fn attend<S, F, B>(
    connection: Connection,
    http: Http,
    service: S,
    told: Arc<Refusals>,
    shutdown: CancellationToken,
) where
    S: Fn(Request<Body>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: HttpBody<Data = Bytes> + Default + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let slot = connection.slot().clone();
    let weak = Arc::downgrade(&slot);
    let mut peer = Peer { address: connection.address, certificates: Arc::new([]), subject: None, slot: weak };
    let Some(tls) = &http.tls else {
        return exchange(connection, slot, &http, peer, service, shutdown).await;
    };
    let handshake = tokio::time::timeout(http.deadlines.handshake, tls.accept(connection));
    let outcome = tokio::select! {
        outcome = handshake => outcome,
        () = slot.must_close() => return,
        () = shutdown.cancelled() => return,
    };
    match outcome {
        Ok(Ok(stream)) => {
            peer.certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec().into();
            if tls.checks_clients() {
                peer.subject = peer.certificates.first().and_then(|leaf| Subject::of(leaf).ok());
            }
            if peer.subject.is_some() {
                slot.know();
            }
            exchange(stream, slot, &http, peer, service, shutdown).await;
        }
        failed => {
            if let Some(refused) = &http.refused {
                refused();
            }
            let why = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => "it took too long".to_owned(),
            };
            let peer = peer.address.map_or_else(|| "a unix socket".to_owned(), |address| address.to_string());
            if told.is_news(&why) {
                tracing::warn!(peer, why, "a TLS handshake was refused; for an hour no more is said of others like it");
            } else {
                tracing::debug!(peer, why, "a TLS handshake was refused");
            }
        }
    }
}

async fn exchange<I, S, F, B>(
    stream: I,
    slot: Arc<Slot>,
    http: &Http,
    peer: Peer,
    service: S,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Body>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: HttpBody<Data = Bytes> + Default + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (turns, patience) = (slot.clone(), http.deadlines.body);
    let service = service_fn(move |request: Request<Incoming>| {
        let turn = turns.begin();
        let asks_head = request.method() == Method::HEAD;
        let answer = match host::fault(&request) {
            Some(fault) => Err(fault),
            None => Ok(service(request.map(|body| Body::new(body, patience)), peer.clone())),
        };
        async move {
            let response = match answer {
                Err(fault) => return Ok::<_, Infallible>(bad_request(fault)),
                Ok(answer) => answer.await,
            };
            let response = if asks_head { head::without_body(response) } else { response };
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                // The connection is somebody else's from now on, and works until it is closed.
                turn.keep();
                return Ok(response.map(|_| Answer::Text(None)));
            }
            Ok(response.map(|body| Answer::Handler(body, turn)))
        }
    });
    let builder = builder(http);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(Filtered::new(stream)), service));
    let outcome = loop {
        let look = look_again(&slot, &http.deadlines, Instant::now());
        tokio::select! {
            outcome = connection.as_mut() => break outcome,
            () = slot.must_close() => return,
            () = until(look) => match slot.quiet().map(|quiet| quiet.asked) {
                Some(_) if look_again(&slot, &http.deadlines, Instant::now()) != look => {}
                None => {}
                Some(false) => return,
                Some(true) => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(LAST_WORD, connection).await;
                    return;
                }
            },
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
        }
    };
    if let Err(error) = outcome {
        tracing::trace!(%error, "a connection ended");
    }
}

/// When a connection is to be looked at, and closed if it has asked nothing by then. A busy one may become idle
/// unseen: it is looked at again, which is less work than telling of every request.
fn look_again(slot: &Slot, deadlines: &Deadlines, now: Instant) -> Option<Instant> {
    match slot.quiet() {
        Some(quiet) if !quiet.asked => Some(quiet.since + deadlines.header),
        Some(quiet) => deadlines.idle.map(|idle| quiet.since + idle),
        None => deadlines.idle.map(|idle| now + idle),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn builder(http: &Http) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(http.deadlines.idle)
        .max_buf_size(http.max_header_bytes);
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(http.max_streams)
        .max_header_list_size(u32::try_from(http.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(http.deadlines.ping)
        .keep_alive_timeout(PING_TIMEOUT);
    if let Some((stream, connection)) = http.windows {
        http2.initial_stream_window_size(stream).initial_connection_window_size(connection);
    }
    builder
}

/// What Go's server says.
fn bad_request<B>(fault: &str) -> Response<Answer<B>> {
    let text = format!("400 Bad Request: {fault}");
    let mut response = Response::new(Answer::Text(Some(text.into())));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
