//! `/healthz` and `/readyz`, for probes. I/O: listens, by `serving`. Caller: the daemon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use serving::{Body, Connections, Http, Listener, Peer, Port};
use tokio_util::sync::CancellationToken;

/// Whether this host has its lease and pods can be made.
pub type Ready = Arc<AtomicBool>;

/// Answers until `stop`.
pub async fn serve(address: SocketAddr, ready: Ready, stop: CancellationToken) -> std::io::Result<()> {
    let listener = Listener::bind_within(Connections::of(Port::Pages), address).await?;
    let handler = move |request: Request<Body>, _: Peer| std::future::ready(answer(request.uri().path(), &ready));
    tokio::spawn(serving::serve(listener, Http::pages(None), handler, stop));
    Ok(())
}

fn answer(path: &str, ready: &Ready) -> Response<Full<Bytes>> {
    match path {
        "/healthz" => text(StatusCode::OK, "flannel is running\n"),
        "/readyz" if ready.load(Ordering::Relaxed) => text(StatusCode::OK, "flannel is ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "this host has no lease yet\n"),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
