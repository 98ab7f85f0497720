//! The loop: informers feed one channel; each event changes snapshot and queue; then pods are decided on until none is
//! active. Bindings run beside the loop: the pod is assumed on its node meanwhile.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::pages::Pages;
use client::{Delta, ExecuteError, Executor, Informer};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::watcher;
use kube::{Api, Resource};
use rustc_hash::FxHashMap;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::binding::{Bindings, Next};
use crate::framework::{Change, Profile, What};
use crate::groups::{Grouping, Groups};
use crate::metrics::Metrics;
use crate::plan;
use crate::plugins::PLUGINS;
use crate::pod::PodInfo;
use crate::preemption::{Budget, Preemption, preempt};
use crate::queue::{Queue, Queued};
use crate::schedule::{Decision, FitError, schedule_by};
use crate::snapshot::Snapshot;
use crate::templates::Templates;

/// Decisions made before new events are looked at: keeps the view fresh in a storm of pods.
const DECISIONS_PER_TURN: usize = 64;
/// Decisions that are written at the same time; the others wait for their turn. An API server has room for two hundred
/// changes at once, ours for half of them from one caller, and who is refused comes again a second later.
const WRITES: usize = 64;

/// Settings of the scheduler.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
    /// Breaks ties among equally good nodes.
    pub seed: u64,
    /// `--leader-elect`: None runs at once, for a single replica.
    pub leader_election: Option<client::lease::Candidate>,
    /// Where health and metrics are served: `--bind-address`, `--secure-port`; None is nowhere.
    pub serving: Option<client::pages::Config>,
    /// Set when the first pod could be decided on.
    pub ready: client::Latch,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            scheduler_name: "default-scheduler".into(),
            seed: 0,
            leader_election: None,
            serving: None,
            ready: client::Latch::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Serving(#[from] client::pages::Error),
    #[error("leadership lost")]
    LeadershipLost,
    #[error("the scheduler's informers ended")]
    InformersEnded,
}

enum Event {
    Pod(Delta<Pod>),
    Node(Delta<Node>),
    Namespace(Delta<Namespace>),
    Budget(Delta<PodDisruptionBudget>),
    /// A Service or a controller came, changed or went.
    Group(Box<dyn FnOnce(&mut Groups) + Send>),
    /// A plan was carried out, or not.
    Done {
        uid: String,
        binding: bool,
        result: Result<(), ExecuteError>,
    },
}

/// Starts an informer for each resource that decisions look at; all of them feed one channel.
struct Feeds {
    client: kube::Client,
    events: mpsc::UnboundedSender<Event>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    synced: Vec<BoxFuture<'static, ()>>,
}

impl Feeds {
    fn add<K>(&mut self, only: watcher::Config, event: fn(Delta<K>) -> Event)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let events = self.events.clone();
        let informer = Informer::new(Api::<K>::all(self.client.clone())).select(only);
        let informer = informer.on(move |delta| drop(events.send(event(delta.clone()))));
        let (cache, task) = informer.run(self.shutdown.clone());
        self.tasks.push(task);
        self.synced.push(Box::pin(async move { cache.synced().await }));
    }

    fn add_groups<K>(&mut self)
    where
        K: Resource<DynamicType = ()> + Grouping + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.add::<K>(watcher::Config::default(), |delta| {
            Event::Group(Box::new(move |groups| match &delta {
                Delta::Deleted(object) => groups.remove::<K>(object.meta()),
                delta => groups.set(delta.object().meta(), delta.object().as_ref()),
            }))
        });
    }
}

/// Schedules pods until `shutdown`.
pub async fn run(config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    let metrics = serve_pages(&config, &client, &shutdown).await?;
    let Some(candidate) = config.leader_election.clone() else {
        return lead(config, metrics, client, shutdown).await;
    };
    let own = client.clone();
    let led = candidate.lead(client, shutdown.clone(), |held| lead(config, metrics, own, held)).await;
    led.unwrap_or(Ok(()))?;
    if shutdown.is_cancelled() { Ok(()) } else { Err(Error::LeadershipLost) }
}

/// Serves the pages of health and metrics, before this candidate leads: those who wait are healthy too.
async fn serve_pages(config: &Config, client: &kube::Client, shutdown: &CancellationToken) -> Result<Metrics, Error> {
    let pages = Pages::new();
    let metrics = Metrics::declare(&pages.metrics);
    if let Some(serving) = &config.serving {
        client::pages::start(serving, Arc::new(pages), client.clone(), shutdown.clone()).await?;
    }
    Ok(metrics)
}

async fn lead(
    config: Config,
    metrics: Metrics,
    client: kube::Client,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    // An informer's handler can't wait. As long as what changes in the API while one decision is made.
    let (events, mut rx) = mpsc::unbounded_channel();
    let (tasks, synced) = (Vec::new(), Vec::new());
    let mut feeds = Feeds { client: client.clone(), events: events.clone(), shutdown: shutdown.clone(), tasks, synced };
    let all = watcher::Config::default;
    feeds.add(all().fields("status.phase!=Succeeded,status.phase!=Failed"), Event::Pod);
    feeds.add(all(), Event::Node);
    feeds.add(all(), Event::Namespace);
    feeds.add(all(), Event::Budget);
    feeds.add_groups::<Service>();
    feeds.add_groups::<ReplicationController>();
    feeds.add_groups::<ReplicaSet>();
    feeds.add_groups::<StatefulSet>();
    // A decision that doesn't know every running pod would fill a node twice.
    let synced = futures::future::join_all(std::mem::take(&mut feeds.synced));
    tokio::select! {
        _ = synced => config.ready.set(),
        () = shutdown.cancelled() => return Ok(()),
    }
    let mut scheduler = Scheduler::new(config, metrics, Executor::new(client, "default-scheduler"), events);
    loop {
        let wait = scheduler.wait();
        tokio::select! {
            () = shutdown.cancelled() => break,
            event = rx.recv() => match event {
                Some(event) => scheduler.apply(event),
                None => return Err(Error::InformersEnded),
            },
            () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => {}
        }
        while let Ok(event) = rx.try_recv() {
            scheduler.apply(event);
        }
        scheduler.decide();
        scheduler.metrics.pending(scheduler.queue.waiting());
    }
    feeds.tasks.iter().for_each(JoinHandle::abort);
    Ok(())
}

struct Scheduler {
    config: Config,
    profile: Profile,
    metrics: Metrics,
    snapshot: Snapshot,
    templates: Templates,
    queue: Queue,
    bindings: Bindings,
    budgets: FxHashMap<client::Key, Budget>,
    executor: Executor,
    writes: Arc<Semaphore>,
    done: mpsc::UnboundedSender<Event>,
    began: Instant,
    decisions: u64,
    start: usize,
}

impl Scheduler {
    fn new(config: Config, metrics: Metrics, executor: Executor, done: mpsc::UnboundedSender<Event>) -> Scheduler {
        Scheduler {
            config,
            profile: PLUGINS,
            metrics,
            snapshot: Snapshot::default(),
            templates: Templates::default(),
            queue: Queue::new(PLUGINS),
            bindings: Bindings::new(PLUGINS),
            budgets: FxHashMap::default(),
            executor,
            writes: Arc::new(Semaphore::new(WRITES)),
            done,
            began: Instant::now(),
            decisions: 0,
            start: 0,
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// How long nothing can happen without an event.
    fn wait(&self) -> Option<Duration> {
        if self.queue.has_active() {
            return Some(Duration::ZERO);
        }
        self.queue.next_deadline().map(|at| Duration::from_millis(at.saturating_sub(self.now())))
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Pod(delta) => self.pod(&delta),
            Event::Node(delta) => self.node(&delta),
            Event::Namespace(Delta::Deleted(ns)) => {
                self.snapshot.namespaces.remove(ns.metadata.name.as_deref().unwrap_or_default());
            }
            Event::Namespace(delta) => {
                let meta = &delta.object().metadata;
                let name = meta.name.clone().unwrap_or_default();
                self.snapshot.namespaces.insert(name, meta.labels.clone().unwrap_or_default());
            }
            Event::Budget(Delta::Deleted(pdb)) => drop(self.budgets.remove(&client::Key::of(pdb.as_ref()))),
            Event::Budget(delta) => {
                let pdb = delta.object();
                self.budgets.insert(client::Key::of(pdb.as_ref()), Budget::of(pdb));
            }
            Event::Group(change) => change(&mut self.snapshot.groups),
            Event::Done { uid, binding, result } => self.done(&uid, binding, result),
        }
    }

    fn pod(&mut self, delta: &Delta<Pod>) {
        let info = Arc::new(self.templates.shared(PodInfo::new(delta.object())));
        let gone = matches!(delta, Delta::Deleted(_));
        if gone {
            self.queue.remove(&info.uid);
            self.bindings.gone(&mut self.snapshot, &info.uid);
            self.snapshot.withdraw(&info.uid);
            if self.snapshot.displace(&info.uid).is_some() {
                self.queue.changed(&Change::pod(What::Removed, &info));
            }
            return;
        }
        if let Some(node) = info.node().map(str::to_owned) {
            self.queue.remove(&info.uid);
            self.bindings.bound(&mut self.snapshot, &info.uid, &node);
            let known = self.snapshot.place_of(&info.uid) == Some(node.as_str());
            self.snapshot.place(info.clone(), &node);
            if !known || matches!(delta, Delta::Updated { old, new } if old.metadata.labels != new.metadata.labels) {
                self.queue.changed(&Change::pod(What::Added, &info));
            }
            return;
        }
        let ours = info.scheduler.as_ref() == Some(&self.config.scheduler_name);
        let unchanged = matches!(delta, Delta::Updated { old, new } if same_wishes(old, new));
        match info.nominated_node().map(str::to_owned) {
            Some(node) if ours && !info.is_terminating => self.snapshot.nominate(info.clone(), &node),
            _ => self.snapshot.withdraw(&info.uid),
        }
        if info.is_terminating || !ours {
            self.queue.remove(&info.uid);
        } else if !unchanged && self.snapshot.place_of(&info.uid).is_none() {
            let now = self.now();
            self.queue.put(info, now);
        }
    }

    fn node(&mut self, delta: &Delta<Node>) {
        let node = delta.object();
        let name = node.metadata.name.clone().unwrap_or_default();
        match delta {
            Delta::Deleted(_) => return self.snapshot.remove_node(&name),
            Delta::Updated { old, new } if same_node(old, new) => return,
            Delta::Added(_) | Delta::Updated { .. } => self.snapshot.set_node(node),
        }
        let Some(info) = self.snapshot.node(&name) else { return };
        let what = if matches!(delta, Delta::Added(_)) { What::Added } else { What::Updated };
        self.queue.changed(&Change::node(what, info));
    }

    fn done(&mut self, uid: &str, binding: bool, result: Result<(), ExecuteError>) {
        if let Err(error) = &result {
            tracing::warn!(%error, uid, "scheduling decision not carried out");
        }
        if !binding {
            return;
        }
        match self.bindings.carried_out(&mut self.snapshot, uid, result.is_ok()) {
            Next::Run(plan) => self.execute(uid.to_owned(), true, plan),
            Next::Nothing => {}
            // Bound by someone else, gone, or the server failed: the informer tells which; until then it may try again.
            Next::GaveBack => {
                let now = self.now();
                self.queue.failed(uid, now);
            }
        }
    }

    fn decide(&mut self) {
        for _ in 0..DECISIONS_PER_TURN {
            let now = self.now();
            let Some(queued) = self.queue.take(now) else { return };
            self.decisions += 1;
            let seed = self.config.seed.wrapping_add(self.decisions);
            let began = Instant::now();
            let decision = schedule_by(self.profile, &queued.pod, &self.snapshot, self.start, seed);
            let result = if matches!(decision, Decision::Bind { .. }) { "scheduled" } else { "unschedulable" };
            self.metrics.attempt(&self.config.scheduler_name, result, began.elapsed());
            match decision {
                Decision::Bind { node, evaluated, .. } => {
                    self.start = (self.start + evaluated) % self.snapshot.slots().len().max(1);
                    let waited = Duration::from_millis(now.saturating_sub(queued.added));
                    self.metrics.bound(queued.attempts, waited);
                    self.bind(&queued, &node, now);
                }
                Decision::Unschedulable(error) => self.refuse(&queued, &error, now),
            }
        }
    }

    fn bind(&mut self, queued: &Queued, node: &str, now: u64) {
        match self.bindings.begin(&mut self.snapshot, &queued.pod, node) {
            Ok(plan) => self.execute(queued.pod.uid.clone(), true, plan),
            Err(refused) => {
                let (rejected, plugins) = (Some(refused.why), vec![refused.plugin]);
                let error = FitError { nodes: self.snapshot.len(), rejected, plugins, ..FitError::default() };
                self.refuse(queued, &error, now);
            }
        }
    }

    fn refuse(&mut self, queued: &Queued, error: &FitError, now: u64) {
        let budgets: Vec<Budget> = self.budgets.values().cloned().collect();
        let mut message = error.to_string();
        self.metrics.preemptions.inc();
        let nomination = match preempt(self.profile, &queued.pod, &self.snapshot, error, &budgets) {
            Preemption::Nominate(nomination) => {
                self.snapshot.nominate(queued.pod.clone(), &nomination.node);
                Some(nomination)
            }
            Preemption::Pointless(why) if error.nodes > 0 => {
                message = format!("{message} preemption: {why}");
                None
            }
            Preemption::Pointless(_) => None,
        };
        let stamp = timestamp();
        let plan = plan::unschedulable(&queued.pod, "Unschedulable", &message, nomination.as_ref(), &stamp);
        self.queue.refused(&queued.pod.uid, error.plugins.clone(), now);
        self.execute(queued.pod.uid.clone(), false, plan);
    }

    fn execute(&self, uid: String, binding: bool, plan: client::Plan) {
        let (executor, done, writes) = (self.executor.clone(), self.done.clone(), self.writes.clone());
        tokio::spawn(async move {
            tracing::debug!(%plan, uid, "decided");
            let turn = writes.acquire().await;
            let result = executor.run(&plan, |_, _| {}).await;
            drop(turn);
            let _ = done.send(Event::Done { uid, binding, result });
        });
    }
}

fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether an update of a waiting pod leaves everything that scheduling looks at as it was.
fn same_wishes(old: &Pod, new: &Pod) -> bool {
    old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
}

fn same_node(old: &Node, new: &Node) -> bool {
    let status = |n: &Node| n.status.as_ref().map(|s| (s.allocatable.clone(), s.images.clone()));
    old.spec == new.spec && old.metadata.labels == new.metadata.labels && status(old) == status(new)
}
