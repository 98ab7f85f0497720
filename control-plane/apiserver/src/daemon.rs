//! Starts the server and keeps it running: the only loop of this crate's own making.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serving::{Listener, Port};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::Authenticator;
use crate::authn::jwt::{Signer, Verifier};
use crate::authn::service_account::{Objects, ServiceAccountTokens};
use crate::authn::x509::X509;
use crate::authz::node::Node;
use crate::authz::rules::Rule;
use crate::authz::{AlwaysAllow, Authorizer, Masters};
use crate::cache::hub::Hub;
use crate::config::Config;
use crate::crd::controller::Controller;
use crate::error::Error;
use crate::http::listener;
use crate::http::tls;
use crate::proxy::{Dialer, Tcp};
use crate::server::{Core, Server};
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
    let x509 = x509(&config)?;
    let (token_signer, token_keys) = token_keys(&config)?;
    let hub = Arc::new(Hub::new(store.clone(), root));
    let mut core = Core::new(config, store, hub.clone(), dialer, shutdown.clone())?;
    if let Some(sealing) = sealing {
        core.metrics.follow_encryption(&sealing);
    }
    core.token_signer = token_signer;
    core.token_keys = token_keys;
    core.authenticators = authenticators(&core, x509);
    core.authorizers = authorizers(&core)?;
    if let Some(port) = port {
        core.port.store(port, Ordering::Relaxed);
    }
    let core = Arc::new(core);
    let (ready, loaded) = oneshot::channel();
    tokio::spawn(hub.run(ready, shutdown.clone()));
    if loaded.await.is_err() {
        return Err(Error::Bootstrap("stopped before the store could be read".to_owned()));
    }
    Controller::new(core.clone(), shutdown.clone()).start().await;
    core.bootstrap().await?;
    core.metrics.follow(&core);
    core.set_started();
    tokio::spawn(compact(core.clone(), shutdown.clone()));
    Ok(Server { core })
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
    compactor::run(&*core.store, core.config.etcd_compaction_interval, &core.compacted, shutdown).await;
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

fn x509(config: &Config) -> Result<Option<X509>, Error> {
    const FLAG: &str = "--client-ca-file";
    let Some(path) = &config.client_ca_file else { return Ok(None) };
    let authorities = tls::certificates(FLAG, path)?;
    X509::new(&authorities).map(Some).map_err(|reason| Error::File { flag: FLAG, path: path.clone(), reason })
}

/// Key that signs tokens, and keys that check them (the signing key's own when no other is named).
fn token_keys(config: &Config) -> Result<(Option<Signer>, Vec<Verifier>), Error> {
    let mut keys = Vec::new();
    for path in &config.service_account_key_files {
        let fail = |reason| Error::File { flag: "--service-account-key-file", path: path.clone(), reason };
        keys.extend(Verifier::read(path).map_err(fail)?);
    }
    let Some(path) = &config.service_account_signing_key_file else { return Ok((None, keys)) };
    let fail = |reason: String| Error::File { flag: "--service-account-signing-key-file", path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let signer = Signer::from_pem(&pem).map_err(fail)?;
    let own = signer.verifier().map_err(fail)?;
    if !keys.contains(&own) {
        keys.insert(0, own);
    }
    Ok((Some(signer), keys))
}

/// Authorisers as `--authorization-mode` names them, after the one that lets system:masters through.
fn authorizers(core: &Core) -> Result<Vec<Arc<dyn Authorizer>>, Error> {
    let mut chain: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Masters)];
    for mode in &core.config.authorization_mode {
        match mode.as_str() {
            "Node" => {
                let node = Node::new(&core.registry.load(), node_rules());
                chain.push(Arc::new(node.ok_or_else(|| Error::Bootstrap("pods are not served".to_owned()))?));
            }
            "RBAC" => chain.push(core.rbac.clone()),
            "AlwaysAllow" => chain.push(Arc::new(AlwaysAllow)),
            "AlwaysDeny" => {}
            other => {
                let why = format!("--authorization-mode {other}: choose among Node, RBAC, AlwaysAllow, AlwaysDeny");
                return Err(Error::Bootstrap(why));
            }
        }
    }
    Ok(chain)
}

/// The rules of upstream's `system:node` role.
fn node_rules() -> Vec<Rule> {
    let role = kinds::bootstrap().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == "system:node");
    role.as_ref().map(Rule::all).unwrap_or_default()
}

/// Authenticators in upstream's order.
fn authenticators(core: &Core, x509: Option<X509>) -> Vec<Box<dyn Authenticator>> {
    let mut chain: Vec<Box<dyn Authenticator>> = Vec::new();
    if let Some(x509) = x509 {
        chain.push(Box::new(x509));
    }
    let registry = core.registry.load();
    let cache = |plural: &str| registry.cache("", plural);
    if let (Some(accounts), Some(pods), Some(secrets), Some(nodes)) =
        (cache("serviceaccounts"), cache("pods"), cache("secrets"), cache("nodes"))
    {
        let objects = Objects { hub: core.hub.clone(), accounts, pods, secrets, nodes };
        let issuer = core.config.service_account_issuer.clone();
        chain.push(Box::new(ServiceAccountTokens::new(issuer, core.token_keys.clone(), objects)));
    }
    chain
}
