//! /health, /ready and /metrics, each on its port as upstream's DNS server has them. Does I/O.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::daemon::Error;
use crate::server::Shared;

/// A probe's request fits; more is not read.
const MOST_REQUEST: usize = 4096;
/// A probe that takes longer has gone.
const PATIENCE: Duration = Duration::from_secs(5);

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
    fn answer(self, shared: &Shared) -> (&'static str, String) {
        match self {
            Page::Health => ("200 OK", "OK".to_owned()),
            Page::Ready if shared.table.read().is_synced() => ("200 OK", "OK".to_owned()),
            Page::Ready => ("503 Service Unavailable", "kubernetes".to_owned()),
            Page::Metrics => ("200 OK", metrics(shared)),
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
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            if let Ok((stream, _)) = accepted {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, page, &shared)).await;
                });
            }
        }
    });
    Ok(())
}

async fn answer(mut stream: TcpStream, page: Page, shared: &Shared) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut chunk = [0; 512];
        let read = stream.read(&mut chunk).await?;
        if read == 0 || request.len() + read > MOST_REQUEST {
            return Ok(());
        }
        request.extend_from_slice(&chunk[..read]);
    }
    let line = String::from_utf8_lossy(&request);
    let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let (status, body) =
        if path == page.path() { page.answer(shared) } else { ("404 Not Found", "404 page not found\n".to_owned()) };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await
}
