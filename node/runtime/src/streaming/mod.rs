//! The streaming server: exec, attach and port-forward, after the kubelet has asked for their address. Does I/O.
//!
//! The CRI call answers a loopback URL with a random token, good once and for a minute; the kubelet carries the
//! client's upgraded connection there byte by byte. Both protocols of Kubernetes clients are spoken: WebSocket
//! (`websocket`) and SPDY/3.1 (`spdy`); what happens in them is in `session` and `portforward`.

mod budget;
mod outcome;
mod portforward;
mod session;
pub mod spdy;
pub mod websocket;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serving::{Http, Listener, Peer, Port};
use tokio_util::sync::CancellationToken;
use wire::cri;

use crate::error::{Error, Result};
use crate::runtime::Runtime;

/// A viewer that hasn't come by then won't come.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Waiting requests; the oldest is dropped for a new one beyond that.
const MAX_TOKENS: usize = 1000;

/// What a token stands for.
#[derive(Debug, Clone)]
pub enum Wanted {
    Exec(cri::ExecRequest),
    Attach(cri::AttachRequest),
    PortForward(cri::PortForwardRequest),
}

impl Wanted {
    fn path(&self) -> &'static str {
        match self {
            Wanted::Exec(_) => "exec",
            Wanted::Attach(_) => "attach",
            Wanted::PortForward(_) => "portforward",
        }
    }
}

/// Requests that wait for their viewer.
#[derive(Debug, Default)]
pub struct Tokens {
    base: OnceLock<String>,
    waiting: Mutex<HashMap<String, (Instant, Wanted)>>,
}

impl Tokens {
    /// The address where an exec will be served.
    pub fn exec(&self, request: cri::ExecRequest) -> Result<String> {
        check_streams(request.tty, request.stdin || request.stdout || request.stderr, request.stderr)?;
        self.keep(Wanted::Exec(request))
    }

    /// The address where an attach will be served.
    pub fn attach(&self, request: cri::AttachRequest) -> Result<String> {
        check_streams(request.tty, request.stdin || request.stdout || request.stderr, request.stderr)?;
        self.keep(Wanted::Attach(request))
    }

    /// The address where a port-forward will be served.
    pub fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String> {
        self.keep(Wanted::PortForward(request))
    }

    fn keep(&self, wanted: Wanted) -> Result<String> {
        let base = self.base.get().ok_or_else(|| Error::Failed("the streaming server is not running".into()))?;
        let token = crate::digest::hex(&rand::random::<[u8; 16]>());
        let url = format!("{base}/{}/{token}", wanted.path());
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, (at, _)| at.elapsed() < TOKEN_LIFE);
        if waiting.len() >= MAX_TOKENS
            && let Some(oldest) = waiting.iter().min_by_key(|(_, (at, _))| *at).map(|(token, _)| token.clone())
        {
            waiting.remove(&oldest);
        }
        waiting.insert(token, (Instant::now(), wanted));
        Ok(url)
    }

    /// Takes a request; a token is good once.
    fn take(&self, path: &str) -> Option<Wanted> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let (at, wanted) = self.waiting.lock().remove(token)?;
        (at.elapsed() < TOKEN_LIFE && wanted.path() == kind).then_some(wanted)
    }
}

fn check_streams(tty: bool, any: bool, stderr: bool) -> Result<()> {
    if tty && stderr {
        return Err(Error::Invalid("tty and stderr cannot both be true".into()));
    }
    if any { Ok(()) } else { Err(Error::Invalid("one of stdin, stdout, or stderr must be set".into())) }
}

/// Serves streams until `shutdown`; those that are open then end with it.
pub async fn serve(runtime: Arc<Runtime>, shutdown: CancellationToken) {
    let listener = match Listener::bind(Port::Streams, SocketAddr::from(([127, 0, 0, 1], 0))).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "no port for streams: exec, attach and port-forward will not work");
            return;
        }
    };
    if let Ok(address) = listener.local_addr() {
        let _ = runtime.streams.base.set(format!("http://{address}"));
    }
    let handler = move |request, _: Peer| std::future::ready(respond(request, &runtime));
    serving::serve(listener, Http::default(), handler, shutdown).await;
}

type Answer = Response<Full<Bytes>>;

fn refuse(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *answer.status_mut() = status;
    answer
}

/// Answers the upgrade request; the stream itself runs on a task of its own.
fn respond(mut request: Request<serving::Body>, runtime: &Arc<Runtime>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST");
    }
    let headers = request.headers().clone();
    let Some(protocol) = Protocol::of(&headers, request.uri().path()) else {
        return refuse(StatusCode::BAD_REQUEST, "unable to upgrade: no protocol that is spoken here");
    };
    let Some(wanted) = runtime.streams.take(request.uri().path()) else {
        return refuse(StatusCode::NOT_FOUND, "unknown, used or expired token");
    };
    let answer = match protocol.answer(&headers) {
        Ok(answer) => answer,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
    };
    let runtime = runtime.clone();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let io = TokioIo::new(upgraded);
            tokio::select! {
                () = protocol.run(io, wanted, &runtime) => {}
                () = runtime.closing.cancelled() => {}
            }
        }
    });
    answer
}

/// What was agreed on with the client.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Protocol {
    WebSocket(Option<String>),
    Spdy(Option<String>),
}

fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

impl Protocol {
    /// The best that both sides speak.
    fn of(headers: &HeaderMap, path: &str) -> Option<Self> {
        let upgrade = headers.get(UPGRADE)?.to_str().ok()?.to_ascii_lowercase();
        let forward = path.starts_with("/portforward/");
        let choose = |offered: &[String], known: &[&str]| {
            known.iter().find(|k| offered.iter().any(|o| o == *k)).map(|k| (*k).to_owned())
        };
        match upgrade.as_str() {
            "websocket" => {
                let offered = list(headers, "sec-websocket-protocol");
                let known = if forward { &websocket::FORWARD_PROTOCOLS[..] } else { &websocket::PROTOCOLS[..] };
                match choose(&offered, known) {
                    None if !offered.is_empty() => None,
                    // Old clients name none and mean the first.
                    chosen => Some(Protocol::WebSocket(chosen)),
                }
            }
            "spdy/3.1" => {
                let offered = list(headers, "x-stream-protocol-version");
                let known = if forward { &spdy::FORWARD_PROTOCOLS[..] } else { &spdy::PROTOCOLS[..] };
                match choose(&offered, known) {
                    None if !offered.is_empty() => None,
                    chosen => Some(Protocol::Spdy(chosen)),
                }
            }
            _ => None,
        }
    }

    fn answer(&self, headers: &HeaderMap) -> std::result::Result<Answer, &'static str> {
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let out = answer.headers_mut();
        out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let chosen = |name: &Option<String>| name.as_ref().and_then(|n| HeaderValue::from_str(n).ok());
        match self {
            Protocol::WebSocket(name) => {
                let key = headers.get("sec-websocket-key").ok_or("Sec-WebSocket-Key is missing")?;
                let accept = websocket::accept_key(key.as_bytes());
                out.insert(UPGRADE, HeaderValue::from_static("websocket"));
                out.insert("sec-websocket-accept", HeaderValue::from_str(&accept).map_err(|_| "bad key")?);
                chosen(name).map(|name| out.insert("sec-websocket-protocol", name));
            }
            Protocol::Spdy(name) => {
                out.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                chosen(name).map(|name| out.insert("x-stream-protocol-version", name));
            }
        }
        Ok(answer)
    }

    async fn run(self, io: TokioIo<hyper::upgrade::Upgraded>, wanted: Wanted, runtime: &Arc<Runtime>) {
        match (self, wanted) {
            (Protocol::WebSocket(name), Wanted::PortForward(request)) => {
                websocket::port_forward(io, name.as_deref(), request, runtime).await;
            }
            (Protocol::Spdy(_), Wanted::PortForward(request)) => {
                portforward::over_spdy(io, &request.pod_sandbox_id, runtime).await;
            }
            (Protocol::WebSocket(name), wanted) => websocket::command(io, name.as_deref(), wanted, runtime).await,
            (Protocol::Spdy(name), wanted) => spdy::command(io, name.as_deref(), wanted, runtime).await,
        }
    }
}
