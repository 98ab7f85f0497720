//! The kubelet's HTTP API: TLS on 10250 for the API server and metrics collectors, plain health on 10248. Does I/O.
//!
//! `auth` says who calls and asks whether they may; `route` finds the handler; streams are passed through to the runtime.

mod auth;
mod configz;
mod host_logs;
mod logs;
pub mod params;
mod pods;
mod reply;
mod route;
mod stats;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

use client::delegated::User;
use http::{Request, StatusCode};
use serving::tls::{Clients, Files, Tls};
use serving::{Body, Http, Listener, Peer, Port};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
pub use reply::Server;
use reply::{Reply, text};

/// Opens both ports and serves until shutdown; the port of the API is given back (0 when it is not served).
pub async fn start(server: Server, shutdown: CancellationToken) -> Result<u16, Error> {
    let server = Arc::new(server);
    let config = server.executor.config.clone();
    if config.server.healthz_port != 0 {
        let address = SocketAddr::new(config.server.healthz_bind_address, config.server.healthz_port);
        let listener = bind(Port::Pages, address).await?;
        let server = server.clone();
        let pages = move |request: Request<Body>, _| healthz(server.clone(), request);
        tokio::spawn(serving::serve(listener, Http::pages(None), pages, shutdown.clone()));
    }
    let files = config.server.tls_cert_file.clone().zip(config.server.tls_private_key_file.clone());
    let Some((cert, key)) = files else { return Ok(0) };
    let clients = config.server.client_ca_file.clone().map_or(Clients::Unasked, Clients::Of);
    let tls = Tls::with_policy(Files { cert, key }, &clients, &config.server.tls);
    let tls = tls.map_err(|error| Error::Tls(error.to_string()))?;
    let listener = bind(Port::Kubelet, SocketAddr::new(config.server.address, config.server.port)).await?;
    let port = listener.local_addr().map_or(config.server.port, |a| a.port());
    let auth = Arc::new(auth::Auth::new(server.executor.client.clone(), &config));
    let handler = move |request, peer| answer(server.clone(), auth.clone(), peer, request);
    let http = Http { tls: Some(tls), ..Http::default() };
    tokio::spawn(serving::serve(listener, http, handler, shutdown));
    Ok(port)
}

async fn bind(port: Port, address: SocketAddr) -> Result<Listener, Error> {
    let fail = |source| Error::Listen { address: address.to_string(), source };
    Listener::bind(port, address).await.map_err(fail)
}

async fn answer(server: Arc<Server>, auth: Arc<auth::Auth>, peer: Peer, request: Request<Body>) -> Reply {
    match auth.check(peer.subject().and_then(User::of_subject), &request).await {
        Ok(()) => {
            peer.know();
            route::route(server, request).await
        }
        Err(refusal) => refusal,
    }
}

async fn healthz(server: Arc<Server>, request: Request<Body>) -> Reply {
    match request.uri().path() {
        "/healthz" => route::health(&server).await,
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}
