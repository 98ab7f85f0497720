//! /health, /ready and /metrics, each on its port as upstream's DNS server has them. Does I/O.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serving::{Body, Http, Listener, Peer, Port};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::daemon::Error;
use crate::server::Shared;

/// Opens the ports that are configured.
pub async fn serve(config: &Config, shared: &Arc<Shared>, shutdown: &CancellationToken) -> Result<(), Error> {
    let pages = [(config.health, Page::Health), (config.ready, Page::Ready), (config.metrics, Page::Metrics)];
    for (address, page) in pages {
        if let Some(address) = address {
            listen(address, page, shared.clone(), shutdown.clone()).await?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Page {
    Health,
    Ready,
    Metrics,
}

impl Page {
    fn path(self) -> &'static str {
        match self {
            Page::Health => "/health",
            Page::Ready => "/ready",
            Page::Metrics => "/metrics",
        }
    }

    /// Status and body.
    fn answer(self, shared: &Shared) -> (StatusCode, String) {
        match self {
            Page::Health => (StatusCode::OK, "OK".to_owned()),
            Page::Ready if shared.table.read().is_synced() => (StatusCode::OK, "OK".to_owned()),
            Page::Ready => (StatusCode::SERVICE_UNAVAILABLE, "kubernetes".to_owned()),
            Page::Metrics => (StatusCode::OK, metrics(shared)),
        }
    }
}

fn metrics(shared: &Shared) -> String {
    let number = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let names = shared.table.read().len() as u64;
    let rows = [
        ("dns_requests_total", "counter", "Questions that came in.", number(&shared.questions)),
        ("cache_hits_total", "counter", "Questions answered by the cache.", number(&shared.hits)),
        ("cache_entries", "gauge", "Answers in the cache.", shared.forwarder.cache.lock().len() as u64),
        ("forward_requests_total", "counter", "Questions to upstreams.", number(&shared.forwarder.asked)),
        ("forward_failures_total", "counter", "Questions that no upstream answered.", number(&shared.forwarder.failed)),
        ("kubernetes_names", "gauge", "Names of the cluster.", names),
    ];
    rows.iter()
        .map(|(name, kind, help, value)| {
            format!("# HELP coredns_{name} {help}\n# TYPE coredns_{name} {kind}\ncoredns_{name} {value}\n")
        })
        .collect()
}

async fn listen(
    address: SocketAddr,
    page: Page,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let fail = |source| Error::Bind { address, source };
    let listener = Listener::bind(Port::Pages, address).await.map_err(fail)?;
    let handler = move |request: Request<Body>, _: Peer| std::future::ready(answer(&request, page, &shared));
    tokio::spawn(serving::serve(listener, Http::pages(None), handler, shutdown));
    Ok(())
}

fn answer(request: &Request<Body>, page: Page, shared: &Shared) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() == page.path() {
        true => page.answer(shared),
        false => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
