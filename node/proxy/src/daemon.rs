//! The loop of the proxy: hears of changes, renders, applies, tells how it is. Does I/O.
//!
//! Informers put the names of changed Services into the dirty set and wake the loop; whatever has gathered there while the
//! last transaction was under way goes into the next. A refused transaction is followed by a whole one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Delta, EventRecorder, EventType, Informer, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as NodeObject, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::watcher;
use kube::{Api, Client};
use linux::conntrack::Conntrack;
use linux::netns::NetNs;
use meta::Prefix;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::{Applier, forget_stale};
use crate::claims::Claims;
use crate::config::{Config, LocalDetector, Node, Settings};
use crate::health::{self, Health, HealthChecks};
use crate::meddling::Meddling;
use crate::model::{Change, Model, Name};
use crate::ranges;
use crate::render::{Rendered, SERVICE_NAME, UdpServer, render_service};
use crate::service::node_servers;

/// What upstream's informers leave out: Services that have no address, or have another proxy.
const SELECTOR: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
const BY_SERVICE: &str = "service";
/// The cluster autoscaler's taint: the node is about to go, load balancers shall leave it out.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The first wait after a failure, doubled up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Places that a Service takes beside its endpoints, about.
const OTHER_PLACES: usize = 5;
/// How often it is asked whether elements are missing, when someone else changed rules; upstream's sync period.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// Why the proxy ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{flag} {address}: {source}: choose another address, or none")]
    Bind { flag: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("kube-proxy cannot use nftables: {0}")]
    Kernel(#[from] linux::netlink::Error),
    #[error("--hostname-override: the name of this host's Node is needed")]
    NoNode,
    #[error("network namespace {path}: {source}")]
    Namespace { path: String, source: std::io::Error },
}

/// Runs until `shutdown`. The rules stay in the kernel: connections go on while the proxy is restarted.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    if config.hostname_override.is_empty() {
        return Err(Error::NoNode);
    }
    let health = Arc::new(Health::new(SYNC_PERIOD));
    health::serve(&config, health.clone(), &shutdown).await?;
    let (proxy, dirty) = start(config, client, health, &shutdown)?;
    let synced = async { tokio::join!(proxy.services.synced(), proxy.slices.synced(), proxy.nodes.synced()) };
    tokio::select! {
        _ = synced => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    proxy.follow(dirty, shutdown).await;
    Ok(())
}

/// What changed since the loop last looked: informers mark it and wake the loop.
#[derive(Debug, Default)]
struct DirtySet {
    services: Mutex<BTreeSet<Key>>,
    /// When what is told by changed slices happened, and whether they are of IPv6.
    triggers: Mutex<Vec<(bool, Timestamp)>>,
    wake: Notify,
}

/// More changes at once are not measured one by one.
const MOST_TRIGGERS: usize = 10_000;
/// When the pods behind a slice last changed, as its controller saw it.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

impl DirtySet {
    fn service(&self, key: Key) {
        self.services.lock().insert(key);
        self.wake.notify_one();
    }

    /// Notes when a change of pods happened, once; changes before the proxy started say nothing about it.
    fn trigger(&self, old: Option<&EndpointSlice>, new: &EndpointSlice, started: Timestamp) {
        let told = |slice: &EndpointSlice| -> Option<Timestamp> {
            slice.metadata.annotations.as_ref()?.get(TRIGGER)?.parse().ok()
        };
        let Some(at) = told(new).filter(|at| *at > started && old.and_then(told) != Some(*at)) else { return };
        let mut triggers = self.triggers.lock();
        if triggers.len() < MOST_TRIGGERS {
            triggers.push((new.address_type == "IPv6", at));
        }
    }
}

struct Proxy {
    config: Config,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    nodes: Cache<NodeObject>,
    /// Nobody waits for them: there may be none.
    ranges: Cache<ServiceCIDR>,
    model: Model,
    settings: Settings,
    /// Taken while a transaction is on a blocking thread.
    kernel: Option<Kernel>,
    health: Arc<Health>,
    checks: HealthChecks,
    claims: Claims,
    recorder: EventRecorder,
}

/// The sockets, which block.
struct Kernel {
    applier: Applier,
    conntrack: Conntrack,
    /// Of all rules of the host, after our last transaction.
    generation: u32,
    /// Somebody else changed rules of the host, and whether ours are there was not looked at since.
    foreign: bool,
    /// The same of all elements.
    suspected: bool,
}

fn start(
    config: Config,
    client: Client,
    health: Arc<Health>,
    shutdown: &CancellationToken,
) -> Result<(Proxy, Arc<DirtySet>), Error> {
    let dirty = Arc::new(DirtySet::default());
    let kept = config.last_known.as_deref();
    let selected = || watcher::Config::default().labels(SELECTOR);
    let (mark, told) = (dirty.clone(), health.clone());
    let (services, _) = Informer::new(Api::<Service>::all(client.clone()))
        .select(selected())
        .keep_in(kept)
        .on(move |delta| {
            told.service_changed();
            mark.service(Key::of(&**delta.object()));
        })
        .run(shutdown.clone());
    let (mark, told, started) = (dirty.clone(), health.clone(), Timestamp::now());
    let (slices, _) = Informer::new(Api::<EndpointSlice>::all(client.clone()))
        .select(selected())
        .keep_in(kept)
        .index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect())
        .on(move |delta| {
            told.endpoints_changed();
            match delta {
                Delta::Added(new) => mark.trigger(None, new, started),
                Delta::Updated { old, new } => mark.trigger(Some(old), new, started),
                Delta::Deleted(_) => {}
            }
            if let Delta::Updated { old, .. } = delta
                && let Some(key) = service_of(old)
            {
                mark.service(key);
            }
            if let Some(key) = service_of(delta.object()) {
                mark.service(key);
            }
        })
        .run(shutdown.clone());
    let mark = dirty.clone();
    let mine = watcher::Config::default().fields(&format!("metadata.name={}", config.hostname_override));
    let (nodes, _) = Informer::new(Api::<NodeObject>::all(client.clone()))
        .select(mine)
        .keep_in(kept)
        .on(move |_| mark.wake.notify_one())
        .run(shutdown.clone());
    let mark = dirty.clone();
    let ranges = ranges::follow(client.clone(), kept, move || mark.wake.notify_one(), shutdown.clone());
    let applier = Applier::open(config.clone(), Vec::new())?;
    let conntrack = match &config.netns {
        None => Conntrack::open()?,
        Some(path) => {
            let wrong = |source| Error::Namespace { path: path.display().to_string(), source };
            NetNs::open(path).and_then(|ns| ns.run(Conntrack::open)).map_err(wrong)??
        }
    };
    let checks = HealthChecks::new(health.clone());
    let kernel = Some(Kernel { applier, conntrack, generation: 0, foreign: false, suspected: false });
    let settings = Settings { node_local: config.node_local.clone(), ..Settings::default() };
    let model = Model::default();
    let claims = Claims::new(config.netns.clone());
    let recorder = EventRecorder::new(client, "kube-proxy").on_host(&config.hostname_override);
    let proxy =
        Proxy { config, services, slices, nodes, ranges, model, settings, kernel, health, checks, claims, recorder };
    Ok((proxy, dirty))
}

/// The Service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

impl Proxy {
    async fn follow(mut self, dirty: Arc<DirtySet>, shutdown: CancellationToken) {
        let mut whole = true;
        let mut retry = FIRST_RETRY;
        let meddling = Meddling::open(&self.config);
        let mut check = tokio::time::interval_at(Instant::now() + SYNC_PERIOD, SYNC_PERIOD);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            whole |= self.take_node();
            whole |= self.take_ranges();
            let seen = self.health.seen();
            let triggers = std::mem::take(&mut *dirty.triggers.lock());
            let services = std::mem::take(&mut *dirty.services.lock());
            let changes = self.render(services, whole);
            let done = self.sync(changes, whole, seen).await;
            if done.is_ok() {
                self.health.programmed(&triggers, Timestamp::now());
            }
            if let Err(error) = done {
                self.health.refused();
                tracing::warn!(%error, "rules were refused; sending all of them again");
                whole = true;
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(retry) => {}
                }
                retry = (retry * 2).min(LAST_RETRY);
                continue;
            }
            (whole, retry) = (false, FIRST_RETRY);
            self.config.ready.set();
            if !self.config.min_sync_period.is_zero() {
                tokio::time::sleep(self.config.min_sync_period).await;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = dirty.wake.notified() => self.health.queued(),
                () = meddling.news() => whole = self.was_meddled_with(false).await,
                _ = check.tick() => {
                    whole = self.was_meddled_with(true).await;
                    self.claims.waiting().filter_map(key_of).for_each(|key| dirty.service(key));
                }
            }
        }
    }

    /// Looks at our Node; true when all rules depend on what changed.
    fn take_node(&mut self) -> bool {
        let Some(object) = self.nodes.get_in("", &self.config.hostname_override) else {
            self.settings.node.name = self.config.hostname_override.clone();
            return false;
        };
        let taints = object.spec.as_ref().and_then(|s| s.taints.as_ref());
        let leaving = taints.into_iter().flatten().any(|t| t.key == TO_BE_DELETED);
        self.health.set_eligible(!leaving && object.metadata.deletion_timestamp.is_none());
        let zone = object.metadata.labels.as_ref().and_then(|l| l.get(ZONE)).filter(|z| !z.is_empty()).cloned();
        let node = Node { name: self.config.hostname_override.clone(), zone, addresses: addresses(&object) };
        let changed = self.settings.node != node;
        self.settings.node = node;
        changed
    }

    /// Looks at the ranges of pods and of Services; true when they are others than before.
    fn take_ranges(&mut self) -> bool {
        let node = self.nodes.get_in("", &self.config.hostname_override);
        let pods = pod_ranges(&self.config, node.as_deref());
        let all = self.ranges.list();
        let services = all.iter().flat_map(|range| range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()));
        let services: Vec<Prefix> = services.filter_map(|range| range.parse().ok()).collect();
        let kernel = self.kernel.as_mut().expect("the sockets are back between transactions");
        kernel.applier.set_ranges(pods, &services)
    }

    /// Renders these Services, or all; the model has them then. What changes is told where not all are rendered.
    fn render(&mut self, mut keys: BTreeSet<Key>, all: bool) -> Vec<Change> {
        if !all {
            return keys
                .into_iter()
                .map(|key| {
                    let (name, rendered) = self.contribution(&key);
                    self.model.set(&name, rendered)
                })
                .collect();
        }
        keys.extend(self.services.list().iter().map(|s| Key::of(&**s)));
        keys.extend(self.model.names().filter_map(key_of));
        let endpoints = |slice: &Arc<EndpointSlice>| slice.endpoints.as_ref().map_or(0, Vec::len);
        let endpoints: usize = self.slices.list().iter().map(endpoints).sum();
        self.model.reserve(keys.len(), endpoints + OTHER_PLACES * keys.len());
        let rendered: Vec<_> = keys.iter().map(|key| self.contribution(key)).collect();
        self.model.set_all(rendered);
        Vec::new()
    }

    /// What a Service contributes; nothing when there is none.
    fn contribution(&mut self, key: &Key) -> (Name, Rendered) {
        let name: Name = key.to_string().into();
        let service = self.services.get(key);
        self.claim(&name, service.as_deref());
        let Some(service) = service else { return (name, Rendered::default()) };
        let slices = self.slices.by(BY_SERVICE, &name);
        let slices: Vec<&EndpointSlice> = slices.iter().map(|s| &**s).collect();
        let rendered = render_service(&service, &slices, &self.settings, self.model.rendered(&name));
        (name, rendered)
    }

    /// Takes the node's ports that a Service is to be reached at, as far as the host has no use for them itself.
    fn claim(&mut self, name: &Name, service: Option<&Service>) {
        let wanted = service.map(|service| node_servers(service, &self.settings.node)).unwrap_or_default();
        let missing = self.claims.set(name, wanted, &mut self.settings.held);
        if let Some((service, server)) = service.zip(missing.first()) {
            let (addr, port) = (server.addr, server.port);
            let note = format!("something on the node has port {port} of {addr}: the Service is not reached there");
            tracing::warn!(service = %name, "{note}");
            self.recorder.event(&client::reference(service), EventType::Warning, "PortInUse", &note);
        }
    }

    /// Sends what changed, or the whole.
    async fn sync(&mut self, changes: Vec<Change>, whole: bool, seen: (u64, u64)) -> Result<(), linux::netlink::Error> {
        let start = Instant::now();
        let udp: Vec<UdpServer> =
            if whole { self.model.udp() } else { changes.iter().flat_map(|c| c.udp.iter().cloned()).collect() };
        let all = whole.then(|| self.model.whole());
        let mut kernel = self.kernel.take().expect("the sockets are back between transactions");
        let health = self.health.clone();
        let work = move || {
            let before = kernel.applier.generation().unwrap_or(kernel.generation);
            kernel.foreign |= !whole && before != kernel.generation;
            let done = match all {
                Some(all) => kernel.applier.replace(&all),
                None => kernel.applier.apply(changes.iter().map(|c| &c.transaction)),
            };
            if done.is_ok() {
                let began = Instant::now();
                match forget_stale(&mut kernel.conntrack, &udp) {
                    Ok(flows) => health.forgot(began.elapsed(), flows),
                    Err(error) => tracing::warn!(%error, "old UDP flows keep their endpoints until they are idle"),
                }
                kernel.generation = kernel.applier.generation().unwrap_or(0);
            }
            (kernel, done)
        };
        let (kernel, done) = tokio::task::spawn_blocking(work).await.expect("applying rules does not panic");
        self.kernel = Some(kernel);
        if done.is_ok() {
            self.health.updated(start.elapsed(), whole, seen);
            self.health.no_local(self.model.no_local());
            self.checks.set(self.model.health_checks()).await;
        }
        done
    }

    /// Whether somebody else's transaction took rules of ours away: looked at when there was one. Whether it took
    /// elements is asked thoroughly, and so not often.
    async fn was_meddled_with(&mut self, thoroughly: bool) -> bool {
        let mut kernel = self.kernel.take().expect("the sockets are back between transactions");
        let own = !kernel.foreign && kernel.applier.generation().is_ok_and(|now| now == kernel.generation);
        if !thoroughly && own {
            self.kernel = Some(kernel);
            return false;
        }
        let counts = (thoroughly && kernel.suspected).then(|| self.model.counts());
        let look = move || {
            let now = kernel.applier.generation().unwrap_or(kernel.generation);
            let another = kernel.foreign || now != kernel.generation;
            (kernel.generation, kernel.foreign) = (now, false);
            kernel.suspected |= another;
            let mut lost = another && !kernel.applier.is_whole().unwrap_or(true);
            if let Some(counts) = counts {
                lost |= !kernel.applier.has_all(&counts).unwrap_or(true);
                kernel.suspected = false;
            }
            (kernel, lost)
        };
        let (kernel, lost) = tokio::task::spawn_blocking(look).await.expect("listing rules does not panic");
        self.kernel = Some(kernel);
        if lost {
            tracing::warn!(table = %self.config.table, "someone removed our rules; putting them back");
        }
        lost
    }
}

fn key_of(name: &Name) -> Option<Key> {
    name.split_once('/').map(|(namespace, name)| Key::new(namespace, name))
}

/// The addresses of the node itself.
fn addresses(node: &NodeObject) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|s| s.addresses.as_ref()).into_iter().flatten();
    let own = all.filter(|a| matches!(a.type_.as_str(), "InternalIP" | "ExternalIP"));
    let mut addresses: Vec<IpAddr> = own.filter_map(|a| a.address.parse().ok()).collect();
    addresses.dedup();
    addresses
}

/// The ranges by which pods are told from others; none: they are not known.
fn pod_ranges(config: &Config, node: Option<&NodeObject>) -> Option<Vec<Prefix>> {
    match config.detect_local {
        LocalDetector::ClusterCidr => Some(config.cluster_cidr.clone()),
        LocalDetector::BridgeInterface(_) => Some(Vec::new()),
        LocalDetector::NodeCidr => {
            let ranges = node?.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref());
            Some(ranges.into_iter().flatten().filter_map(|range| range.parse().ok()).collect())
        }
    }
}
