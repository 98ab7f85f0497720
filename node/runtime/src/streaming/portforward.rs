//! Port-forward: connections to ports inside a pod, carried over SPDY streams. Does I/O.
//!
//! The client opens two streams for each of its connections, told to belong together by their request ID: `data`, and
//! `error` for a sentence when the port can't be reached.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::spdy::{Connection, Stream};
use crate::runtime::{Runtime, blocking};

/// A port of the pod itself answers at once or not at all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Halves of pairs that wait for the other; a client opens both at once.
const MAX_HALVES: usize = 64;
/// How long they wait, as upstream's kubelet lets them.
const HALF_PATIENCE: Duration = Duration::from_secs(30);
/// Connections into the pod at once.
const MAX_PAIRS: usize = 512;

/// Connects to a port on the pod's loopback, IPv4 first.
pub async fn connect(runtime: &Arc<Runtime>, sandbox: &str, port: u16) -> Result<TcpStream, String> {
    let sandbox = runtime.sandbox(sandbox).map_err(|e| e.to_string())?;
    let netns = runtime.sandbox_run_dir(&sandbox.id).join("net");
    let dial = move || {
        let try_both = || {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
            let dial = |to: &SocketAddr| std::net::TcpStream::connect_timeout(to, CONNECT_PATIENCE);
            dial(&v4).or_else(|first| dial(&v6).map_err(|_| first))
        };
        if !linux::namespaces::is_pinned(&netns) {
            // A pod of the host's network.
            return try_both();
        }
        linux::netns::NetNs::open(&netns)?.run(try_both)?
    };
    let text = |e: std::io::Error| format!("failed to connect to localhost:{port} inside the pod: {e}");
    let socket = blocking(dial).await.map_err(|e| e.to_string())?.map_err(text)?;
    socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)).map_err(text)?;
    TcpStream::from_std(socket).map_err(text)
}

/// Serves a port-forward over a connection that speaks SPDY.
pub async fn over_spdy<T>(io: T, sandbox: &str, runtime: &Arc<Runtime>)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = Connection::new(io);
    let mut halves = Halves::default();
    let mut pairs = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = connection.streams.recv() => stream,
            () = halves.expired() => {
                halves.drop_expired(Instant::now()).await;
                continue;
            }
        };
        let Some(stream) = stream else { return };
        let Some((data, error)) = halves.join(stream).await else { continue };
        while pairs.try_join_next().is_some() {}
        if pairs.len() >= MAX_PAIRS {
            data.cancel().await;
            error.cancel().await;
            continue;
        }
        let (runtime, sandbox) = (runtime.clone(), sandbox.to_owned());
        pairs.spawn(async move { pair(data, error, &sandbox, &runtime).await });
    }
}

/// Streams that came and whose other one has yet to come, by what tells that they belong together.
#[derive(Default)]
struct Halves(HashMap<String, (Instant, Stream)>);

impl Halves {
    /// The pair that a stream makes whole: data, error.
    async fn join(&mut self, stream: Stream) -> Option<(Stream, Stream)> {
        let request = request_id(&stream);
        let Some((_, other)) = self.0.remove(&request) else {
            if self.0.len() < MAX_HALVES {
                self.0.insert(request, (Instant::now(), stream));
            } else {
                stream.cancel().await;
            }
            return None;
        };
        Some(if stream.header("streamtype") == "data" { (stream, other) } else { (other, stream) })
    }

    /// Returns when the oldest has waited long enough.
    async fn expired(&self) {
        match self.0.values().map(|(since, _)| *since).min() {
            Some(oldest) => tokio::time::sleep_until(oldest + HALF_PATIENCE).await,
            None => std::future::pending().await,
        }
    }

    async fn drop_expired(&mut self, now: Instant) {
        for (_, (_, stream)) in self.0.extract_if(|_, (since, _)| now.duration_since(*since) >= HALF_PATIENCE) {
            stream.cancel().await;
        }
    }
}

/// Clients before request IDs opened the two streams for a port one after the other.
fn request_id(stream: &Stream) -> String {
    match stream.header("requestid") {
        "" => format!("port {}", stream.header("port")),
        id => id.to_owned(),
    }
}

async fn pair(data: Stream, error: Stream, sandbox: &str, runtime: &Arc<Runtime>) {
    let port = data.header("port").to_owned();
    let (_, error) = error.split();
    let (mut input, output) = data.split();
    let socket = match port.parse() {
        Ok(number) => connect(runtime, sandbox, number).await,
        Err(_) => Err(format!("{port:?} is not a port")),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(reason) => {
            error.send(format!("error forwarding port {port} to pod {sandbox}: {reason}").as_bytes()).await;
            error.finish().await;
            output.finish().await;
            return;
        }
    };
    let (mut from, mut to) = socket.into_split();
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let outward = async {
        let mut buffer = vec![0u8; 32 << 10];
        while let Ok(n) = from.read(&mut buffer).await {
            if n == 0 || !output.send(&buffer[..n]).await {
                break;
            }
        }
        output.finish().await;
    };
    tokio::join!(inward, outward);
    error.finish().await;
}

#[cfg(test)]
mod tests {
    use super::super::spdy::testing::Client;
    use super::*;

    #[tokio::test]
    async fn a_half_without_its_other_is_given_up() {
        let (near, far) = tokio::io::duplex(64 << 10);
        let mut connection = Connection::new(far);
        let mut client = Client::new(near);
        let mut halves = Halves::default();
        for number in 0..=MAX_HALVES {
            client.open(&[("streamtype", "data"), ("port", "1"), ("requestid", &number.to_string())]).await;
            assert!(halves.join(connection.streams.recv().await.unwrap()).await.is_none());
        }
        assert_eq!(client.resets(1).await, [2 * MAX_HALVES as u32 + 1], "one too many");
        client.open(&[("streamtype", "error"), ("port", "1"), ("requestid", "0")]).await;
        let (data, error) = halves.join(connection.streams.recv().await.unwrap()).await.unwrap();
        assert_eq!((data.header("streamtype"), error.header("streamtype")), ("data", "error"));
        halves.drop_expired(Instant::now()).await;
        assert_eq!(halves.0.len(), MAX_HALVES - 1, "they have time");
        halves.drop_expired(Instant::now() + HALF_PATIENCE).await;
        assert!(halves.0.is_empty());
        assert_eq!(client.resets(MAX_HALVES - 1).await.len(), MAX_HALVES - 1);
    }
}
