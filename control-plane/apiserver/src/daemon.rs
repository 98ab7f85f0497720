//! Starts the server and keeps it running: the only loop of this crate's own making.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::authz::{AlwaysAllow, Masters};
use crate::cache::hub::Hub;
use crate::config::Config;
use crate::error::Error;
use crate::http::listener;
use crate::server::{Core, Server};
use crate::storage::Store;

/// A server that has loaded its caches, and where it listens.
pub struct Running {
    pub server: Server,
    /// `None` without a listener.
    pub address: Option<SocketAddr>,
    tasks: tokio_util::task::TaskTracker,
    shutdown: CancellationToken,
}

impl Running {
    /// Returns when the server has stopped.
    pub async fn wait(self) {
        self.shutdown.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Runs until shutdown.
pub async fn run(config: Config, store: Arc<dyn Store>, shutdown: CancellationToken) -> Result<(), Error> {
    start(config, store, shutdown).await?.wait().await;
    Ok(())
}

/// Loads the caches, sets up the cluster's own objects and starts to listen. The address is bound before anything
/// else, so that a port in use is told at once.
pub async fn start(config: Config, store: Arc<dyn Store>, shutdown: CancellationToken) -> Result<Running, Error> {
    let address = SocketAddr::new(config.bind_address, config.secure_port);
    let listener = TcpListener::bind(address).await.map_err(|reason| Error::Listen { address, reason })?;
    let address = listener.local_addr().ok();
    let server = assemble(config, store, &shutdown).await?;
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(listener::serve(server.clone(), listener, None, shutdown.clone()));
    Ok(Running { server, address, tasks, shutdown })
}

/// A server without a listener, for use in the same process.
pub async fn assemble(config: Config, store: Arc<dyn Store>, shutdown: &CancellationToken) -> Result<Server, Error> {
    let root = Bytes::from(format!("{}/", config.etcd_prefix));
    let hub = Arc::new(Hub::new(store.clone(), root));
    let mut core = Core::new(config, store, hub.clone(), shutdown.clone());
    core.authorizers = vec![Box::new(Masters), Box::new(AlwaysAllow)];
    let core = Arc::new(core);
    let (ready, loaded) = oneshot::channel();
    tokio::spawn(hub.run(ready, shutdown.clone()));
    if loaded.await.is_err() {
        return Err(Error::Bootstrap("stopped before the store could be read".to_owned()));
    }
    Ok(Server { core })
}
