//! The loop of the repair: hears what changed, has it judged, carries out what is decided. It has a timer only while
//! something is wrong. Every API server runs one, as upstream's do: writes are guarded, so that two do no more than one.
//! I/O: the clock, the store.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use meta::{Reason, Status};
use object::meta_text;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::tell::Teller;
use super::{Facts, INTERVAL, Plan, Step, addresses, ports};
use crate::cache::{Cache, Entry, Event, EventType, Scope, Watcher};
use crate::config::Config;
use crate::registry::options::{DeleteOptions, Propagation};
use crate::registry::own::own_call;
use crate::registry::verbs::Verbs;
use crate::service::held::{self, ADDRESSES};
use crate::service::{Range, Ranges};
use crate::storage::{Guard, Txn, TxnOutcome, Write};

const IP_CONTROLLER: &str = "ipallocator-repair-controller";
const PORT_CONTROLLER: &str = "portallocator-repair-controller";
const RANGES: (&str, &str) = ("networking.k8s.io", "servicecidrs");
/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);
/// Objects judged before others get their turn on this thread.
const TURN: usize = 64;

/// What is judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Work {
    Service(String, String),
    Address(String),
    Port(u16),
}

/// See the module's head.
pub struct Repair {
    verbs: Arc<Verbs>,
    /// `--service-cluster-ip-range`; none when that can't be read, and the server has said so.
    ranges: Option<Ranges>,
    ports: (u16, u16),
    /// Node ports as they are stored; none when no plugin gives them away.
    node_ports: Option<Arc<Cache>>,
    teller: Teller,
    /// When what is to be judged, and the same by what.
    agenda: BTreeSet<(Instant, Work)>,
    due: HashMap<Work, Instant>,
    ages: ports::Ages,
    /// Cancelled when everything has been looked through once.
    done: CancellationToken,
}

struct Watchers {
    services: Watcher,
    addresses: Watcher,
    ranges: Watcher,
    ports: Option<Watcher>,
}

impl Repair {
    pub fn new(verbs: Arc<Verbs>, config: &Config, server: IpAddr, done: CancellationToken) -> Repair {
        let prefix = held::node_ports_prefix(&config.etcd_prefix);
        Repair {
            ranges: Ranges::parse(&config.service_cluster_ip_range).ok(),
            ports: config.service_node_port_range,
            node_ports: verbs.objects.hub.cache(prefix.as_bytes()),
            teller: Teller::new(verbs.clone(), server.to_string()),
            verbs,
            agenda: BTreeSet::new(),
            due: HashMap::new(),
            ages: ports::Ages::default(),
            done,
        }
    }

    /// Looks through everything, then follows what changes, until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let Some(mut watchers) = self.look_through().await else { return self.done.cancel() };
        loop {
            self.work(&shutdown).await;
            if !shutdown.is_cancelled() {
                self.done.cancel();
            }
            let next = self.agenda.first().map(|(due, _)| *due);
            let whole = tokio::select! {
                () = shutdown.cancelled() => return,
                () = at(next) => true,
                event = watchers.services.next() => self.heard(event, Repair::service_changed),
                event = watchers.addresses.next() => self.heard(event, Repair::address_changed),
                event = watchers.ranges.next() => {
                    self.all_services().await;
                    event.is_some()
                }
                event = next_of(watchers.ports.as_mut()) => self.heard(event, Repair::port_changed),
            };
            if !whole {
                let Some(anew) = self.look_through().await else { return };
                watchers = anew;
            }
        }
    }

    /// Looks at everything, marks what is not right, and begins to watch; none when there are no Services here.
    async fn look_through(&mut self) -> Option<Watchers> {
        let registry = self.verbs.objects.registry.load_full();
        let watch = |(group, plural): (&str, &str)| {
            registry.cache(group, plural).map(|cache| cache.snapshot_and_watch(Scope::All).1)
        };
        let (services, addresses, ranges) = (watch(("", "services"))?, watch(ADDRESSES)?, watch(RANGES)?);
        let held = self.node_ports.as_ref().map(|cache| cache.snapshot_and_watch(Scope::All));
        self.all_services().await;
        let all = self.verbs.objects.entries(ADDRESSES.0, ADDRESSES.1, "");
        let managed = all.iter().filter(|entry| entry.label(held::MANAGED_BY) == Some(held::ALLOCATOR));
        self.consider(managed.map(|entry| Work::Address(entry.name().to_owned()))).await;
        let mut ports = None;
        if let Some((snapshot, watcher)) = held {
            let prefix = self.node_ports.as_ref().map(|cache| cache.prefix.clone()).unwrap_or_default();
            let all: Vec<u16> =
                snapshot.range(&prefix, &Bytes::new()).filter_map(|entry| entry.name().parse().ok()).collect();
            self.consider(all.into_iter().map(Work::Port)).await;
            ports = Some(watcher);
        }
        Some(Watchers { services, addresses, ranges, ports })
    }

    async fn all_services(&mut self) {
        let all = self.verbs.objects.entries("", "services", "");
        let named = |entry: &Arc<Entry>| Work::Service(entry.namespace().to_owned(), entry.name().to_owned());
        self.consider(all.iter().map(named)).await;
    }

    /// Marks what is not right of many: most is.
    async fn consider(&mut self, all: impl Iterator<Item = Work> + Send) {
        for (turn, work) in all.enumerate() {
            if !self.judge(&work).0.is_empty() {
                self.mark(work, Duration::ZERO);
            }
            if turn % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// To be judged after a time, or sooner when it is so already.
    fn mark(&mut self, work: Work, after: Duration) {
        let due = Instant::now() + after;
        match self.due.get(&work) {
            Some(known) if *known <= due => return,
            Some(known) => {
                self.agenda.remove(&(*known, work.clone()));
            }
            None => {}
        }
        self.due.insert(work.clone(), due);
        self.agenda.insert((due, work));
    }

    fn mark_port(&mut self, entry: &Entry) {
        if let Ok(port) = entry.name().parse() {
            self.mark(Work::Port(port), Duration::ZERO);
        }
    }

    /// Takes an event; whether there was one. Without, some were missed.
    fn heard(&mut self, event: Option<Arc<Event>>, take: impl FnOnce(&mut Repair, &Event)) -> bool {
        if let Some(event) = &event {
            take(self, event);
        }
        event.is_some()
    }

    fn service_changed(&mut self, event: &Event) {
        let entry = &event.entry;
        if event.event != EventType::Deleted {
            self.mark(Work::Service(entry.namespace().to_owned(), entry.name().to_owned()), Duration::ZERO);
        }
        // What it had and has no longer.
        let before = event.previous.as_ref().filter(|before| before.value != entry.value);
        let gone = (event.event == EventType::Deleted).then_some(entry);
        for entry in before.into_iter().chain(gone) {
            let spec = &entry.object()["spec"];
            for address in crate::service::fields::addresses(spec) {
                self.mark(Work::Address(address), Duration::ZERO);
            }
            for port in crate::service::fields::node_ports(spec) {
                self.mark(Work::Port(port), Duration::ZERO);
            }
        }
    }

    fn address_changed(&mut self, event: &Event) {
        if event.event != EventType::Deleted {
            self.mark(Work::Address(event.entry.name().to_owned()), Duration::ZERO);
        }
        let object = event.entry.object();
        if let Some((namespace, name)) = held::service_of(&object) {
            self.mark(Work::Service(namespace.to_owned(), name.to_owned()), Duration::ZERO);
        }
    }

    fn port_changed(&mut self, event: &Event) {
        self.mark_port(&event.entry);
        if let Some((namespace, name)) = held::owner(&event.entry.object()) {
            self.mark(Work::Service(namespace.to_owned(), name.to_owned()), Duration::ZERO);
        }
    }

    /// Judges what is due.
    async fn work(&mut self, shutdown: &CancellationToken) {
        let mut turn = 0;
        while let Some((due, work)) = self.agenda.first().cloned() {
            if due > Instant::now() || shutdown.is_cancelled() {
                return;
            }
            self.agenda.remove(&(due, work.clone()));
            self.due.remove(&work);
            let (mut plan, mut object) = self.judge(&work);
            if !plan.is_empty() {
                // One transaction may have come to one cache and not to the other yet.
                if self.verbs.objects.hub.catch_up().await.is_err() {
                    self.mark(work, RETRY);
                    continue;
                }
                (plan, object) = self.judge(&work);
            }
            self.carry_out(work, plan, &object).await;
            turn += 1;
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// What is wrong, and the object that was judged.
    fn judge(&mut self, work: &Work) -> (Plan, Value) {
        let now = Timestamp::now();
        match work {
            Work::Service(namespace, name) => {
                let Some(service) = self.service(namespace, name) else { return (Plan::default(), Value::Null) };
                let mut plan = addresses::of_service(&service, self);
                let of_ports = ports::of_service(&service, self);
                plan.told.extend(of_ports.told);
                plan.steps.extend(of_ports.steps);
                plan.counted.extend(of_ports.counted);
                plan.again = plan.again.or(of_ports.again);
                (plan, service)
            }
            Work::Address(name) => {
                let Some(address) = self.address(name) else { return (Plan::default(), Value::Null) };
                (addresses::of_address(&address, self, now), address)
            }
            Work::Port(port) => {
                let mut ages = std::mem::take(&mut self.ages);
                let plan = ages.judge(*port, self, now);
                self.ages = ages;
                (plan, Value::Null)
            }
        }
    }

    async fn carry_out(&mut self, work: Work, plan: Plan, object: &Value) {
        for sort in &plan.counted {
            self.verbs.objects.metrics.node_port_errors.with([*sort]).inc();
        }
        let troubled = !plan.told.is_empty();
        for told in plan.told {
            let (namespace, name) = super::at(object);
            tracing::warn!(namespace, name, reason = told.reason, "{}", told.note);
            let controller = if told.action.starts_with("Port") { PORT_CONTROLLER } else { IP_CONTROLLER };
            self.teller.tell(controller, object, told).await;
        }
        let mut again = plan.again.or(troubled.then_some(INTERVAL));
        for step in plan.steps {
            let of_port = matches!(step, Step::ClaimPort { .. } | Step::FreePort { .. });
            if let Err(status) = self.step(&step, object).await {
                tracing::warn!(%status, ?step, "the repair of a Service's address or port failed; trying again");
                if of_port {
                    self.verbs.objects.metrics.repair_errors.inc();
                }
                again = Some(RETRY);
            }
        }
        if let Some(after) = again {
            self.mark(work, after);
        }
    }

    async fn step(&self, step: &Step, object: &Value) -> Result<(), Status> {
        match step {
            Step::MakeAddress(name) => self.make(name, object).await,
            Step::RemakeAddress { name, uid } => {
                self.remove(name, uid).await?;
                self.make(name, object).await
            }
            Step::RemoveAddress { uid } => self.remove(meta_text(object, "name"), uid).await,
            Step::ClaimPort { port, held } => {
                let (namespace, name) = super::at(object);
                let value = Bytes::from(held::port(*port, namespace, name).to_string());
                let service = self.verbs.objects.lookup("", "services", namespace, name);
                let service =
                    service.filter(|entry| entry.revision.to_string() == meta_text(object, "resourceVersion"));
                let Some(service) = service else { return Ok(()) };
                let guard = Guard { key: service.key.clone(), mod_revision: service.revision };
                self.write(*port, *held, |key| Write::Put { key, value, lease: 0 }, Some(guard)).await
            }
            Step::FreePort { port, held } => self.write(*port, *held, |key| Write::Delete { key }, None).await,
        }
    }

    /// Another server may have made it meanwhile; whatever it is, it is judged when it is heard of.
    async fn make(&self, name: &str, service: &Value) -> Result<(), Status> {
        let (namespace, of) = super::at(service);
        self.verbs.ensure(&held::address(name, namespace, of)).await.map(drop)
    }

    async fn remove(&self, name: &str, uid: &str) -> Result<(), Status> {
        let registry = self.verbs.objects.registry.load_full();
        let Some(served) = registry.any(ADDRESSES.0, ADDRESSES.1) else { return Ok(()) };
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            uid: Some(uid.to_owned()),
            ..DeleteOptions::default()
        };
        match self.verbs.delete_named(&own_call("", name), served, name, &options).await {
            Err(status) if !matches!(status.reason, Reason::NotFound | Reason::Conflict) => Err(status),
            _ => Ok(()),
        }
    }

    /// Writes a port that is stored at a revision; whoever was faster is judged when it is heard of.
    async fn write(
        &self,
        port: u16,
        held: i64,
        write: impl FnOnce(Bytes) -> Write,
        guard: Option<Guard>,
    ) -> Result<(), Status> {
        let Some(cache) = &self.node_ports else { return Ok(()) };
        let key = cache.key("", &port.to_string());
        let mut guards = vec![Guard { key: key.clone(), mod_revision: held }];
        guards.extend(guard);
        let txn = Txn { guards, writes: vec![write(key)] };
        match self.verbs.objects.store.txn(txn).await {
            Ok(TxnOutcome::Committed { .. } | TxnOutcome::Conflict { .. }) => Ok(()),
            Err(error) => Err(Status::internal(format!("node port {port}: {error}"))),
        }
    }
}

impl Facts for Repair {
    fn service(&self, namespace: &str, name: &str) -> Option<Value> {
        self.verbs.objects.lookup("", "services", namespace, name).map(|entry| entry.object())
    }

    fn is_unreadable(&self, namespace: &str, name: &str) -> bool {
        let Some(cache) = self.verbs.objects.registry.load().cache("", "services") else { return false };
        let corrupt = cache.corrupt_below(&cache.namespace_prefix(namespace));
        corrupt.iter().any(|at| *at == format!("{namespace}/{name}"))
    }

    fn address(&self, name: &str) -> Option<Value> {
        self.verbs.objects.lookup(ADDRESSES.0, ADDRESSES.1, "", name).map(|entry| entry.object())
    }

    fn port(&self, port: u16) -> Option<(Value, i64)> {
        let cache = self.node_ports.as_ref()?;
        cache.lookup("", &port.to_string()).map(|entry| (entry.object(), entry.revision))
    }

    fn in_range(&self, address: IpAddr) -> bool {
        let told = |range: &Range| range.contains(address);
        let stored = |entry: &Arc<Entry>| {
            let cidrs = entry.object()["spec"]["cidrs"].as_array().cloned().unwrap_or_default();
            cidrs.iter().filter_map(Value::as_str).filter_map(|cidr| Range::parse(cidr).ok()).any(|range| told(&range))
        };
        self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(told))
            || self.verbs.objects.entries(RANGES.0, RANGES.1, "").iter().any(stored)
    }

    fn ports(&self) -> (u16, u16) {
        self.ports
    }
}

/// Waits until then; for ever when there is nothing to wait for.
async fn at(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

async fn next_of(watcher: Option<&mut Watcher>) -> Option<Arc<Event>> {
    match watcher {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}
