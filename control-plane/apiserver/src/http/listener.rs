//! The listener: every request of a connection goes to the server with the certificates that its client showed.
//! I/O: sockets.

use std::sync::Arc;

use serving::tls::Tls;
use serving::{Http, Listener};
use tokio_util::sync::CancellationToken;

use super::body::request_body;
use crate::server::Server;

/// Answers until shutdown, then lets running requests finish.
pub async fn serve(server: Server, listener: Listener, tls: Option<Tls>, shutdown: CancellationToken) {
    let failed = server.core.metrics.handshake_errors.clone();
    let http = Http { tls, refused: Some(Arc::new(move || failed.inc())), ..Http::default() };
    let answer = move |request: http::Request<serving::Body>, peer| {
        let server = server.clone();
        server.serve(request.map(request_body), peer)
    };
    serving::serve(listener, http, answer, shutdown).await;
}
