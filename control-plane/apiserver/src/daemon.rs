//! Starts the server and keeps it running: the only loop of this crate's own making.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serving::{Listener, Port};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bootstrap::{Bootstrap, authentication_info, masterleases};
use crate::cache::hub::Hub;
use crate::config::{Config, EndpointReconciler};
use crate::crd::controller::Controller;
use crate::error::Error;
use crate::http::listener;
use crate::http::tls;
use crate::proxy::{Dialer, Tcp};
use crate::server::{Core, Server};
use crate::service::repair::daemon::Repair;
use crate::storage::encryption::EncryptedStore;
use crate::storage::{Store, compactor};

/// A server that has loaded its caches, and where it listens.
pub struct Running {
    pub server: Server,
    /// `None` without a listener.
    pub address: Option<SocketAddr>,
    tasks: TaskTracker,
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

/// Loads the caches, sets up the cluster's own objects and starts to listen. Files are read and the address is bound
/// before anything else, so that a wrong flag or a port in use is told at once.
pub async fn start(config: Config, store: Arc<dyn Store>, shutdown: CancellationToken) -> Result<Running, Error> {
    let tls = config.tls.as_ref().map(tls::server).transpose()?;
    let address = SocketAddr::new(config.bind_address, config.secure_port);
    let listener = listen(address).await?;
    let address = listener.local_addr().map_err(|reason| Error::Listen { address, reason })?;
    let mut listeners = vec![listener];
    if let Some(other) = config.also_bind {
        listeners.push(listen(SocketAddr::new(other, address.port())).await?);
    }
    let stop = CancellationToken::new();
    tokio::spawn(stop_later(shutdown.clone(), config.shutdown_delay, stop.clone()));
    let server = assemble(config, store, Some(address.port()), Arc::new(Tcp), &stop).await?;
    let core = server.core.clone();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        core.set_ending();
    });
    let tasks = TaskTracker::new();
    tasks.spawn(lead_to_the_living(server.core.clone(), stop.clone()));
    tasks.spawn(tell_of_authorities(server.core.clone(), stop.clone()));
    for listener in listeners {
        tasks.spawn(listener::serve(server.clone(), listener, tls.clone(), stop.clone()));
    }
    Ok(Running { server, address: Some(address), tasks, shutdown: stop })
}

async fn listen(address: SocketAddr) -> Result<Listener, Error> {
    Listener::bind(Port::ApiServer, address).await.map_err(|reason| Error::Listen { address, reason })
}

/// A server without a listener, for use in the same process. `port` is the one to advertise, when there is one; `dialer` reaches kubelets
/// and pods.
pub async fn assemble(
    config: Config,
    store: Arc<dyn Store>,
    port: Option<u16>,
    dialer: Arc<dyn Dialer>,
    shutdown: &CancellationToken,
) -> Result<Server, Error> {
    let sealing = encrypted(&config, store.clone(), shutdown)?;
    let store = sealing.clone().map_or(store, |sealing| Arc::new(sealing) as Arc<dyn Store>);
    let root = Bytes::from(format!("{}/", config.etcd_prefix));
    let hub = Arc::new(Hub::new(store.clone(), root));
    let port = port.unwrap_or(config.secure_port);
    let core = Arc::new(Core::new(config, store, hub.clone(), dialer, port, shutdown.clone())?);
    if let Some(sealing) = sealing {
        core.metrics.follow_encryption(&sealing);
    }
    let (ready, loaded) = oneshot::channel();
    tokio::spawn(hub.run(ready, shutdown.clone()));
    if loaded.await.is_err() {
        return Err(Error::Bootstrap("stopped before the store could be read".to_owned()));
    }
    Controller::new(core.verbs().clone(), core.definitions.clone(), shutdown.clone()).start().await;
    Bootstrap { verbs: core.verbs(), config: &core.config, advertised: &core.advertised }.run().await?;
    core.metrics.follow(&core.objects.registry);
    core.set_started();
    tokio::spawn(compact(core.clone(), shutdown.clone()));
    let repair = Repair::new(core.verbs().clone(), &core.config, core.advertised.address(), core.repaired.clone());
    let stop = shutdown.clone();
    tokio::spawn(async move { repair.run(stop).await });
    let _ = tokio::time::timeout(FIRST_LOOK, core.repaired.cancelled()).await;
    Ok(Server { core })
}

/// How long the first request waits until the addresses of Services have been looked through: a usual cluster's are by
/// then, and the health checks of a large one say that they are not yet.
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// Others hear within this time that a server stops, or by the end of its lease.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often it is looked whether a CA was replaced, as upstream does.
const AUTHORITIES: Duration = Duration::from_secs(60);

/// Keeps the `kubernetes` Service leading to the servers that live, until shutdown; then this one leaves it.
async fn lead_to_the_living(core: Arc<Core>, shutdown: CancellationToken) {
    if core.config.endpoint_reconciler != EndpointReconciler::Lease {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(masterleases::INTERVAL) => {}
            () = shutdown.cancelled() => break,
        }
        if let Err(status) = core.advertised.kubernetes_service(core.verbs()).await {
            tracing::warn!(%status, "the kubernetes Service may lead to servers that are gone; trying again");
        }
    }
    let left = tokio::time::timeout(FAREWELL, core.advertised.leave(core.verbs())).await;
    if !matches!(left, Ok(Ok(()))) {
        tracing::debug!("the kubernetes Service leads here until the lease is over");
    }
}

/// Tells extension API servers of a CA that was replaced, until shutdown.
async fn tell_of_authorities(core: Arc<Core>, shutdown: CancellationToken) {
    let mut told = authentication_info::stamps(&core.config);
    loop {
        tokio::select! {
            () = tokio::time::sleep(AUTHORITIES) => {}
            () = shutdown.cancelled() => return,
        }
        let now = authentication_info::stamps(&core.config);
        if now == told {
            continue;
        }
        match authentication_info::tell(core.verbs(), &core.config).await {
            Ok(()) => told = now,
            Err(status) => tracing::warn!(%status, "extension API servers don't hear of a replaced CA; trying again"),
        }
    }
}

/// Load balancers hear of the end by /readyz, and have until then to send their clients elsewhere.
async fn stop_later(shutdown: CancellationToken, delay: Duration, stop: CancellationToken) {
    shutdown.cancelled().await;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    stop.cancel();
}

async fn compact(core: Arc<Core>, shutdown: CancellationToken) {
    compactor::run(&*core.objects.store, core.config.etcd_compaction_interval, &core.objects.compacted, shutdown).await;
}

/// The store behind `--encryption-provider-config`.
fn encrypted(
    config: &Config,
    store: Arc<dyn Store>,
    shutdown: &CancellationToken,
) -> Result<Option<EncryptedStore>, Error> {
    const FLAG: &str = "--encryption-provider-config";
    let Some(path) = &config.encryption_provider_config else { return Ok(None) };
    let fail = |reason| Error::File { flag: FLAG, path: path.clone(), reason };
    let store = EncryptedStore::open(store, path, &config.etcd_prefix).map_err(fail)?;
    if config.encryption_provider_config_automatic_reload {
        tokio::spawn(store.clone().follow(path.clone(), shutdown.clone()));
    }
    Ok(Some(store))
}
