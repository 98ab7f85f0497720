//! The runtime's loop: opens the store, takes up what a former life left, serves the CRI socket. Does I/O.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pod_network::PodNetwork;
use serving::http::Deadlines;
use serving::{Connections, Http, Listener, Peer, Port};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use wire::cri::image_service_server::ImageServiceServer;
use wire::cri::runtime_service_server::RuntimeServiceServer;
use wire::images::image_transfer_server::ImageTransferServer;

use crate::cri::Service;
use crate::error::{Error, Result};
use crate::runtime::Runtime;

/// Messages of the CRI are small, but lists of hundreds of containers with annotations are not.
const MAX_MESSAGE: usize = 16 << 20;

/// Calls of one connection at once: the kubelet makes a few for every pod.
const MAX_CALLS: u32 = 4096;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// After the wish to end, calls in progress get this long.
const LAST_CALLS: std::time::Duration = std::time::Duration::from_secs(2);

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Images, containers' writable layers and records; survives a reboot.
    pub root_dir: PathBuf,
    /// Sockets, namespaces, PID files; may be emptied by a reboot.
    pub run_dir: PathBuf,
    /// The CRI socket.
    pub socket: PathBuf,
    /// The group below which pods go whose kubelet names none.
    pub cgroup_root: String,
    /// The file that says of registries where their images are and how they are spoken to; read for every pull.
    pub registries: Option<PathBuf>,
}

impl Config {
    /// Everything below two directories.
    pub fn new(root_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        let run_dir = run_dir.into();
        Config {
            root_dir: root_dir.into(),
            socket: run_dir.join("runtime.sock"),
            run_dir,
            cgroup_root: "/ferrokube".into(),
            registries: None,
        }
    }
}

/// Runs the runtime until `shutdown`. Containers go on without it.
pub async fn run(config: Config, network: Arc<dyn PodNetwork>, shutdown: CancellationToken) -> Result<()> {
    let socket = config.socket.clone();
    let runtime = Runtime::open(config, network, shutdown.clone()).await?;
    let listener = listen(&socket).map_err(Error::failed(format_args!("listen on {}", socket.display())))?;
    tracing::info!(socket = %socket.display(), "container runtime serves");
    let service = Service::new(runtime.clone());
    let services = Routes::new(RuntimeServiceServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ImageServiceServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ImageTransferServer::new(service).max_decoding_message_size(MAX_MESSAGE))
        .prepare();
    let answer = move |request, _: Peer| {
        let mut services = services.clone();
        async move { services.call(request).await.unwrap_or_else(|never| match never {}) }
    };
    let streams = crate::streaming::serve(runtime.clone(), shutdown.clone());
    let server = serving::serve(listener, http(), answer, shutdown.clone());
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_CALLS).await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(server, streams) } => {}
        () = late => {}
    }
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

/// Who may open the socket is root: its connections may be idle for days, and a call may stream as long.
fn http() -> Http {
    const PING: std::time::Duration = std::time::Duration::from_secs(2 * 60 * 60);
    let deadlines = Deadlines { idle: None, body: None, ping: PING, ..Deadlines::default() };
    Http { deadlines, max_streams: MAX_CALLS, ..Http::default() }
}

/// Binds the socket for root only; a leftover of a dead daemon is replaced, a living one is not.
fn listen(path: &Path) -> io::Result<Listener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another runtime serves it already"));
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::from_std(linux::fdpass::listen_private(path, BACKLOG)?)?;
    Ok(Listener::unix(Connections::of(Port::Runtime), listener))
}
