//! The server: what every request shares ([`Core`]). The way of a request through it is [`crate::handler`]. Here the parts
//! are put together; what they do is in files of their own.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meta::Status;
use tokio_util::sync::CancellationToken;

use crate::admission::configuration::Configuration;
use crate::admission::{ADMISSION, CONFIGURED, Chain, Parts};
use crate::audit::Audit;
use crate::authn::chain::{self, Authenticators};
use crate::authn::jwt::Verifier;
use crate::authz::chain::Authorizers;
use crate::authz::rbac::Rbac;
use crate::bootstrap::endpoints::Advertised;
use crate::cache::hub::Hub;
use crate::config::Config;
use crate::crd::source::Work;
use crate::error::Error;
use crate::ops::limits::Limits;
use crate::ops::metrics::Metrics;
use crate::proxy::{Dialer, Proxy};
use crate::registry::Registry;
use crate::registry::objects::Objects;
use crate::registry::special::Resources;
use crate::registry::verbs::Verbs;
use crate::storage::Store;

/// What every request shares.
pub struct Core {
    pub config: Arc<Config>,
    /// What is stored and served.
    pub objects: Arc<Objects>,
    /// Answers requests for it.
    pub(crate) resources: Resources,
    pub(crate) authenticators: Arc<Authenticators>,
    pub(crate) authorizers: Arc<Authorizers>,
    pub(crate) limits: Limits,
    /// `None` when no audit log is kept.
    pub(crate) audit: Option<Arc<Audit>>,
    pub metrics: Arc<Metrics>,
    /// Public keys of service-account tokens.
    pub(crate) token_keys: Vec<Verifier>,
    /// Where the `kubernetes` Service leads.
    pub(crate) advertised: Advertised,
    /// What was done about CustomResourceDefinitions.
    pub definitions: Arc<Work>,
    /// What the server sets up at start is there.
    started: AtomicBool,
    /// Cancelled when addresses and ports of Services have been looked through once ([`crate::service::repair`]).
    pub(crate) repaired: CancellationToken,
    /// The server is about to stop: load balancers should send no more.
    ending: AtomicBool,
    /// Cancelled when the server stops: long answers end.
    pub stopping: CancellationToken,
}

impl Core {
    /// Puts the parts together. Files that flags name are read here, before anything is started.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        hub: Arc<Hub>,
        dialer: Arc<dyn Dialer>,
        port: u16,
        stopping: CancellationToken,
    ) -> Result<Core, Error> {
        let config = Arc::new(config);
        let limits = Limits::new(config.max_requests_inflight, config.max_mutating_requests_inflight);
        let metrics = Arc::new(Metrics::new(&limits));
        let registry = Registry::builtin(&hub, &config.etcd_prefix);
        let (signer, token_keys) = chain::token_keys(&config)?;
        let rbac = Arc::new(Rbac::new(&registry)?);
        let authorizers = Arc::new(Authorizers::new(&config, &registry, &rbac)?);
        let authenticators = Arc::new(Authenticators::new(&config, token_keys.clone(), &registry, &hub)?);
        let configuration = Configuration::read(config.admission_control_config_file.as_deref(), CONFIGURED)?;
        let parts = Parts { config: &config, configuration: &configuration, hub: &hub };
        let admission = Chain::new(ADMISSION, &parts, metrics.admission_seconds.clone())?;
        let objects = Arc::new(Objects::new(&config, store, hub, registry, metrics.clone()));
        let verbs = Verbs {
            objects: objects.clone(),
            admission,
            authorizers: authorizers.clone(),
            rbac,
            min_watch: config.min_request_timeout,
            stopping: stopping.clone(),
        };
        let proxy = Proxy::new(&config, dialer)?;
        let advertised = Advertised::new(&config, port);
        Ok(Core {
            resources: Resources::new(&config, Arc::new(verbs), proxy, authenticators.clone(), signer),
            audit: Audit::new(&config)?,
            config,
            objects,
            authenticators,
            authorizers,
            limits,
            metrics,
            token_keys,
            advertised,
            definitions: Arc::default(),
            started: AtomicBool::new(false),
            repaired: CancellationToken::new(),
            ending: AtomicBool::new(false),
            stopping,
        })
    }

    /// The verbs, for what the server writes of its own.
    pub(crate) fn verbs(&self) -> &Arc<Verbs> {
        &self.resources.verbs
    }

    /// The host has another address now: the `kubernetes` Service leads there.
    pub async fn advertise(&self, address: IpAddr) -> Result<(), Status> {
        self.advertised.move_to(address, self.verbs()).await
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
}

/// A running server. Cloning shares it.
#[derive(Clone)]
pub struct Server {
    pub core: Arc<Core>,
}
