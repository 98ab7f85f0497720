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
use crate::corefile::Pages;
use crate::daemon::Error;
use crate::server::Shared;

/// Opens the pages that a configuration asks for, at the addresses of DNS when it names none.
pub async fn open(
    pages: &Pages,
    config: &Config,
    shared: &Arc<Shared>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let wanted = [(pages.health, Page::Health), (pages.ready, Page::Ready), (pages.metrics, Page::Metrics)];
    for (at, page) in wanted {
        let Some((address, port)) = at else { continue };
        let addresses = match address {
            Some(address) => vec![address],
            None => config.bind.iter().map(SocketAddr::ip).collect(),
        };
        for address in addresses {
            listen(SocketAddr::new(address, port), page, shared.clone(), shutdown.clone()).await?;
        }
    }
    Ok(())
}

/// Opens the ports that the process is told.
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
    let live = shared.live();
    let servers = live.servers();
    let cached = servers.iter().filter_map(|s| s.cache.as_ref()).map(|c| c.lock().len() as u64).sum();
    let hits = servers.iter().map(|s| number(&s.hits)).sum();
    let forwards = || servers.iter().flat_map(|s| &s.forwards);
    let checks = forwards().flat_map(|f| f.servers().to_vec()).map(|u| number(&u.checks_failed)).sum();
    let counts = &shared.counts;
    let rows = [
        ("dns_requests_total", "counter", "Questions that came in.", number(&shared.questions)),
        ("cache_hits_total", "counter", "Questions answered by the cache.", hits),
        ("cache_entries", "gauge", "Answers in the cache.", cached),
        ("forward_requests_total", "counter", "Questions to upstreams.", forwards().map(|f| number(&f.asked)).sum()),
        (
            "forward_failures_total",
            "counter",
            "Questions that no upstream answered.",
            forwards().map(|f| number(&f.failed)).sum(),
        ),
        ("proxy_healthcheck_failures_total", "counter", "Health checks that upstreams failed.", checks),
        ("reload_total", "counter", "Configurations that came into force.", number(&counts.reloads)),
        ("reload_failed_total", "counter", "Configurations that could not be used.", number(&counts.failed)),
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
