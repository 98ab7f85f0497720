//! The listener: TCP, TLS with optional client certificates, HTTP/1.1 and HTTP/2. I/O: sockets.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::request_body;
use crate::audit::Peer;
use crate::server::Server;

/// A client that has not finished its TLS handshake or request head by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Streams of one HTTP/2 connection: upstream's limit.
const MAX_STREAMS: u32 = 100;
/// Bytes of the head of a request: upstream's limit.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// How long running requests may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept (no file descriptors, usually), instead of spinning.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts until shutdown, then lets running requests finish.
pub async fn serve(server: Server, listener: TcpListener, tls: Option<TlsAcceptor>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
            _ = shutdown.cancelled() => break,
        };
        tasks.spawn(connection(server.clone(), stream, Peer(peer.ip()), tls.clone(), shutdown.clone()));
    }
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}

async fn connection(
    server: Server,
    stream: TcpStream,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else {
        return http(server, stream, peer, Vec::new(), shutdown).await;
    };
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
            http(server, stream, peer, chain, shutdown).await;
        }
        Ok(Err(error)) => {
            server.core.metrics.handshake_errors.inc();
            tracing::debug!(%error, "TLS handshake failed");
        }
        Err(_) => {
            server.core.metrics.handshake_errors.inc();
            tracing::debug!("TLS handshake took too long");
        }
    }
}

async fn http<S>(
    server: Server,
    stream: S,
    peer: Peer,
    chain: Vec<CertificateDer<'static>>,
    shutdown: CancellationToken,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let chain: Arc<[CertificateDer<'static>]> = chain.into();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let (server, chain) = (server.clone(), chain.clone());
        async move { Ok::<_, Infallible>(server.serve(request.map(request_body), chain).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE).max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        outcome = connection.as_mut() => {
            if let Err(error) = outcome {
                tracing::trace!(%error, "connection ended");
            }
        }
        _ = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
