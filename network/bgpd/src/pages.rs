//! `/metrics`, and `/healthz` for probes. I/O: listens, by `serving`. Called by [`crate::run`].

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use serving::{Body, Connections, Http, Listener, Peer, Port};
use tokio_util::sync::CancellationToken;

use crate::control::Query;
use crate::daemon::Handle;

/// Answers until `stop`; where it listens.
///
/// # Errors
/// The address cannot be had.
pub async fn serve(address: SocketAddr, handle: Handle, stop: CancellationToken) -> std::io::Result<SocketAddr> {
    let listener = Listener::bind_within(Connections::of(Port::Pages), address).await?;
    let local = listener.local_addr()?;
    let answer = move |request: Request<Body>, _: Peer| {
        let handle = handle.clone();
        async move { page(request.uri().path(), &handle).await }
    };
    tokio::spawn(serving::serve(listener, Http::pages(None), answer, stop));
    Ok(local)
}

async fn page(path: &str, handle: &Handle) -> Response<Full<Bytes>> {
    match path {
        // Whoever answers has looked at all neighbours meanwhile: its loop runs.
        "/healthz" => match handle.ask(Query::Measure).await {
            Some(_) => text(StatusCode::OK, "ok\n".to_owned()),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the daemon has ended\n".to_owned()),
        },
        "/metrics" => {
            handle.ask(Query::Measure).await;
            text(StatusCode::OK, handle.registry.text())
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
