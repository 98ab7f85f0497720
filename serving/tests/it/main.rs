//! A listener from outside: floods, deadlines, odd requests, certificates that change.

#![allow(clippy::unwrap_used)]

mod descriptors;
mod floods;
mod old;
mod renewal;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serving::http::Deadlines;
use serving::{Body, Connections, Http, Listener, Peer, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Deadlines that a test can wait for.
const SHORT: Deadlines = Deadlines {
    handshake: Duration::from_millis(300),
    header: Duration::from_millis(300),
    idle: Some(Duration::from_millis(600)),
    body: Some(Duration::from_millis(300)),
    ping: Duration::from_secs(60),
};

/// A server that says what it was asked, and its connections.
struct Server {
    address: SocketAddr,
    connections: Arc<Connections>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn answer(request: Request<Body>, peer: Peer) -> Response<Full<bytes::Bytes>> {
    let path = request.uri().path().to_owned();
    let (code, text) = match path.as_str() {
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            (StatusCode::OK, String::new())
        }
        "/login" => {
            peer.know();
            (StatusCode::OK, "welcome".to_owned())
        }
        "/echo" => match request.into_body().collect().await {
            Ok(body) => (StatusCode::OK, format!("{} bytes", body.to_bytes().len())),
            Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
        },
        _ => (StatusCode::OK, path),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response
}

async fn start(limit: usize, http: Http) -> Server {
    let connections = Connections::with_limit(Port::Pages, limit);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind_within(connections.clone(), address).await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(serving::serve(listener, http, answer, stop.clone()));
    Server { address, connections, stop }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and gives what comes back until the connection is closed or a second has passed.
    async fn talk(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        said(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.talk(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await
    }
}

async fn said(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// Whether the other side closes within this time.
async fn closes_within(stream: &mut TcpStream, time: Duration) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(time, stream.read_to_end(&mut rest)).await.is_ok()
}
