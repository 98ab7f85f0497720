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

use super::spdy::{Connection, Stream};
use crate::runtime::{Runtime, blocking};

/// A port of the pod itself answers at once or not at all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Halves of pairs that wait for the other; a client never has that many.
const MAX_HALVES: usize = 1024;

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
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut pairs = tokio::task::JoinSet::new();
    while let Some(stream) = connection.streams.recv().await {
        let request = request_id(&stream);
        let Some(other) = halves.remove(&request) else {
            if halves.len() < MAX_HALVES {
                halves.insert(request, stream);
            }
            continue;
        };
        let (data, error) = if stream.header("streamtype") == "data" { (stream, other) } else { (other, stream) };
        let (runtime, sandbox) = (runtime.clone(), sandbox.to_owned());
        pairs.spawn(async move { pair(data, error, &sandbox, &runtime).await });
        while pairs.try_join_next().is_some() {}
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
