//! The kubelet's HTTP API: TLS on 10250 for the API server and metrics collectors, plain health on 10248. Does I/O.
//!
//! `auth` says who calls and asks whether they may; `route` finds the handler; streams are passed through to the runtime.

mod auth;
mod configz;
mod host_logs;
mod logs;
mod pods;
mod route;
mod stats;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use client::delegated::User;
use client::tls::{self, TlsFiles};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::act::Hands;
use crate::daemon::Msg;
use crate::error::Error;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub type Reply = Response<Body>;

/// What handlers need.
pub struct Server {
    pub hands: Arc<Hands>,
    /// Questions to the loop.
    pub queries: UnboundedSender<Msg>,
    /// Counts runtime events: whoever waits for the end of a container looks again when it changes.
    pub runtime_changes: watch::Receiver<u64>,
}

/// A whole body.
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer of plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(text));
    *reply.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    reply
}

pub fn json<T: serde::Serialize>(value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut reply = Response::new(full(bytes));
            let kind = http::HeaderValue::from_static("application/json");
            reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            reply
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Opens both ports and serves until shutdown; the port of the API is given back (0 when it is not served).
pub async fn start(server: Server, shutdown: CancellationToken) -> Result<u16, Error> {
    let server = Arc::new(server);
    let config = server.hands.config.clone();
    if config.server.healthz_port != 0 {
        let address = SocketAddr::new(config.server.healthz_bind_address, config.server.healthz_port);
        let listener = bind(address).await?;
        tokio::spawn(healthz(server.clone(), listener, shutdown.clone()));
    }
    let files = config.server.tls_cert_file.clone().zip(config.server.tls_private_key_file.clone());
    let Some((cert_file, key_file)) = files else { return Ok(0) };
    let files = TlsFiles { cert_file, key_file, client_ca_file: config.server.client_ca_file.clone() };
    let tls = tls::acceptor_with(&files, &config.server.tls).map_err(|error| Error::Tls(error.to_string()))?;
    let listener = bind(SocketAddr::new(config.server.address, config.server.port)).await?;
    let port = listener.local_addr().map_or(config.server.port, |a| a.port());
    let auth = Arc::new(auth::Auth::new(server.hands.client.clone(), &config));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let (server, auth, tls) = (server.clone(), auth.clone(), tls.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(stream) = tls.accept(stream).await else { return };
                let certificates = stream.get_ref().1.peer_certificates();
                let caller = certificates.and_then(|c| c.first()).and_then(|c| User::of_certificate(c));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (server, auth, caller) = (server.clone(), auth.clone(), caller.clone());
                    let head = request.method() == Method::HEAD;
                    async move {
                        let reply = answer(server, auth, caller, request).await;
                        let reply = if head { telemetry::head::without_body(reply) } else { reply };
                        Ok::<_, std::convert::Infallible>(reply)
                    }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(port)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address: address.to_string(), source })
}

async fn answer(server: Arc<Server>, auth: Arc<auth::Auth>, caller: Option<User>, request: Request<Incoming>) -> Reply {
    match auth.check(caller, &request).await {
        Ok(()) => route::route(server, request).await,
        Err(refusal) => refusal,
    }
}

async fn healthz(server: Arc<Server>, listener: TcpListener, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let server = server.clone();
                async move {
                    let reply = match request.uri().path() {
                        "/healthz" => route::health(&server).await,
                        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
                    };
                    Ok::<_, std::convert::Infallible>(reply)
                }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
