//! The server: what every request shares ([`Core`]). The way of a request through it is [`crate::handler`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use meta::Status;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::admission::configuration::Configuration;
use crate::admission::{ADMISSION, Chain, Parts};
use crate::audit::Audit;
use crate::authn::Authenticator;
use crate::authn::jwt::{Signer, Verifier};
use crate::authz::rbac::Rbac;
use crate::authz::{self, Attributes, Authorizer, Decision};
use crate::cache::hub::Hub;
use crate::cache::{Cache, Entry};
use crate::config::Config;
use crate::crd::source::Work;
use crate::error::Error;
use crate::http::call::Call;
use crate::ops::limits::Limits;
use crate::ops::metrics::Metrics;
use crate::proxy::{Dialer, Proxy};
use crate::registry::{Registry, Served};
use crate::storage::Store;
use crate::storage::lease::Leases;

/// What every request shares.
pub struct Core {
    pub config: Config,
    pub store: Arc<dyn Store>,
    pub hub: Arc<Hub>,
    pub registry: ArcSwap<Registry>,
    /// What was done about CustomResourceDefinitions.
    pub definitions: Arc<Work>,
    pub(crate) leases: Leases,
    /// Highest revision that this server has written: its own writes are always read back.
    pub(crate) committed: AtomicI64,
    /// Highest revision known to be compacted to: lists of older states have expired, whoever still has them.
    pub(crate) compacted: AtomicI64,
    pub(crate) authenticators: Vec<Box<dyn Authenticator>>,
    pub(crate) authorizers: Vec<Arc<dyn Authorizer>>,
    /// Roles and bindings, whether or not they are an authoriser.
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) admission: Chain,
    /// Reaches kubelets, pods and services.
    pub(crate) proxy: Proxy,
    /// Signs service-account tokens.
    pub(crate) token_signer: Option<Signer>,
    /// Public keys of service-account tokens.
    pub(crate) token_keys: Vec<Verifier>,
    /// Port of the listener; what `--secure-port` says until it is bound.
    pub(crate) port: AtomicU16,
    /// Where the `kubernetes` Service leads; what `--advertise-address` says until the host has another.
    pub(crate) advertised: Mutex<Option<IpAddr>>,
    pub(crate) limits: Limits,
    pub metrics: Metrics,
    /// `None` when no audit log is kept.
    pub(crate) audit: Option<Arc<Audit>>,
    /// What the server sets up at start is there.
    started: AtomicBool,
    /// The server is about to stop: load balancers should send no more.
    ending: AtomicBool,
    /// Cancelled when the server stops: long answers end.
    pub stopping: CancellationToken,
}

impl Core {
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        hub: Arc<Hub>,
        dialer: Arc<dyn Dialer>,
        stopping: CancellationToken,
    ) -> Result<Core, Error> {
        let proxy = Proxy::new(&config, dialer)?;
        let registry = Registry::builtin(&hub, &config.etcd_prefix);
        let rbac = Arc::new(Rbac::new(&registry)?);
        let configuration = Configuration::read(config.admission_control_config_file.as_deref())?;
        let limits = Limits::new(config.max_requests_inflight, config.max_mutating_requests_inflight);
        let metrics = Metrics::new(&limits);
        let parts = Parts { config: &config, configuration: &configuration, hub: &hub };
        let admission = Chain::new(ADMISSION, &parts, metrics.admission_seconds.clone())?;
        let audit = Audit::new(&config)?;
        Ok(Core {
            registry: ArcSwap::from_pointee(registry),
            definitions: Arc::default(),
            store,
            hub,
            leases: Leases::default(),
            committed: AtomicI64::new(0),
            compacted: AtomicI64::new(0),
            authenticators: Vec::new(),
            authorizers: Vec::new(),
            rbac,
            admission,
            proxy,
            token_signer: None,
            token_keys: Vec::new(),
            port: AtomicU16::new(config.secure_port),
            advertised: Mutex::new(config.advertise_address),
            limits,
            metrics,
            audit,
            started: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            stopping,
            config,
        })
    }

    /// Whether everything that the server sets up at start is there.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub(crate) fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether the server is about to stop, or stops.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire) || self.stopping.is_cancelled()
    }

    pub(crate) fn set_ending(&self) {
        self.ending.store(true, Ordering::Release);
    }

    pub fn last_commit(&self) -> i64 {
        self.committed.load(Ordering::Acquire)
    }

    /// An object by resource and name: from the cache, or from the store when the cache has not heard of it.
    pub async fn find(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let registry = self.registry.load_full();
        let Some(served) = registry.any(group, plural) else { return Ok(None) };
        let store = self.stored(served)?;
        let key = store.cache.key(namespace, name);
        if let Some(entry) = store.cache.get(&key) {
            return Ok(Some(entry));
        }
        self.live(served, &key).await
    }

    /// Every object of a resource (of a namespace, when one is given), as the cache has them.
    pub fn entries(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Entry>> {
        let registry = self.registry.load();
        let Some(cache) = registry.cache(group, plural) else { return Vec::new() };
        cache.snapshot().range(&cache.namespace_prefix(namespace), &Bytes::new()).cloned().collect()
    }

    /// Store keys of everything that is served and can't be read, without the prefix of the store.
    pub fn unreadable(&self) -> Vec<String> {
        let registry = self.registry.load();
        let stores = registry.iter().filter(|served| served.native()).filter_map(|served| served.store.as_ref());
        let of = |cache: &Cache| {
            let prefix = String::from_utf8_lossy(&cache.prefix).into_owned();
            let below =
                prefix.strip_prefix(&self.config.etcd_prefix).unwrap_or(&prefix).trim_start_matches('/').to_owned();
            cache.corrupt_below(&cache.prefix).into_iter().map(move |tail| format!("{below}{tail}")).collect::<Vec<_>>()
        };
        stores.flat_map(|store| of(&store.cache)).collect()
    }

    /// Asks the authorisers.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        authz::decide(&self.authorizers, attributes)
    }

    /// Asks the authorisers for a second verb on what the request names, because it does that verb's work, too. The
    /// refusal is in upstream's words, which are not those of a request refused at the door.
    pub fn require(&self, call: &Call, served: &Served, verb: &'static str) -> Result<(), Status> {
        if call.info.verb == verb {
            return Ok(());
        }
        let namespace = if served.namespaced() { call.info.namespace.as_str() } else { "" };
        match self.decide(&Attributes { verb, namespace, ..call.attributes() }) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                Err(Status::forbidden(&served.gvr(), &call.info.name, why))
            }
        }
    }
}

/// A running server. Cloning shares it.
#[derive(Clone)]
pub struct Server {
    pub core: Arc<Core>,
}
