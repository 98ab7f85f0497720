//! The kubelet's loop: pods and runtime events in, one worker a pod, actions out. The only file that loops over both.
//!
//! Workers decide (`worker`), hands act (`act`), everything that happens comes back as one [`Msg`].

mod moving;
mod statics;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Delta, EventRecorder, Informer};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Api;
use kube::runtime::watcher;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use wire::cri;

use crate::act::{Answer, Hands};
use crate::addresses::Addresses;
use crate::admit::{self, Scene};
use crate::config::Config;
use crate::cri::{Cri, shown};
use crate::error::Error;
use crate::heartbeat::Heartbeat;
use crate::housekeeping::Housekeeping;
use crate::machine::Machine;
use crate::names::label;
use crate::node::Pressure;
use crate::objects::{Changed, Objects};
use crate::pleg::{self, Observation};
use crate::pods;
use crate::qos::Classes;
use crate::rate::Rate;
use crate::server::{self, Server};
use crate::volumes::Volumes;
use crate::volumes::refreshing::Refreshing;
use crate::worker::{Action, Event, Life, PodWorker, Settings, Verdict};

/// How soon a runtime that does not answer yet is asked again.
const RUNTIME_RETRY: Duration = Duration::from_millis(100);

/// Everything that the loop reacts to.
#[allow(clippy::large_enum_variant)]
pub enum Msg {
    Pod(Delta<Pod>),
    /// The pods that files name now.
    Static(Vec<Pod>),
    /// All pods of the API are in the cache.
    Synced,
    Answer(Answer),
    Runtime(pleg::Message),
    Changed(Changed),
    /// The node has other addresses now.
    HostIps(Vec<String>),
    /// The volumes of a pod were brought up to date.
    Refreshed(String),
    Query(Query),
}

/// What the HTTP API asks of the loop.
pub enum Query {
    /// All pods with their status, in the order of their UIDs.
    Pods(oneshot::Sender<Vec<Arc<Pod>>>),
    /// One pod by namespace and name (and UID, if given).
    Pod { namespace: String, name: String, uid: Option<String>, reply: oneshot::Sender<Option<Box<PodWorker>>> },
    /// All workers as they are.
    Workers(oneshot::Sender<Vec<PodWorker>>),
    /// The loop is alive.
    Ping(oneshot::Sender<()>),
}

/// Runs a kubelet until shutdown. Containers go on running after it.
pub async fn run(mut config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    config.run = uuid::Uuid::new_v4().to_string();
    let config = Arc::new(config);
    prepare_host(&config)?;
    let cri = Cri::connect(&config.container_runtime_endpoint)?;
    let machine = Machine::read();
    let (msgs, inbox) = unbounded_channel();
    let addresses = moving::follow(&config, &msgs, &shutdown);
    let informers = start_informers(&config, &client, &msgs, &shutdown);
    let recorder = EventRecorder::new(client.clone(), "kubelet").on_host(&config.node_name);
    let changed = Arc::new(Notify::new());
    let pressure = Arc::new(Mutex::new(Pressure::default()));
    let Some(runtime_name) = wait_for_runtime(&cri, &shutdown).await else { return Ok(()) };
    let hands = hands(&config, &cri, &client, &recorder, &informers, &machine, &addresses, &msgs);
    let classes = Classes::prepare(hands.cgroups.as_ref(), &config, &machine)?;
    let (runtime_changes, watch_runtime) = watch::channel(0u64);
    let server = Server { hands: hands.clone(), queries: msgs.clone(), runtime_changes: watch_runtime };
    let port = server::start(server, shutdown.clone()).await?;
    let housekeeping = Housekeeping {
        classes,
        hands: hands.clone(),
        queries: msgs.clone(),
        pressure: pressure.clone(),
        node_changed: changed.clone(),
        pid_max: machine.pid_max,
    };
    tokio::spawn(housekeeping.run(shutdown.clone()));
    let heartbeat = Arc::new(Heartbeat {
        config: config.clone(),
        cri: cri.clone(),
        client: client.clone(),
        nodes: informers.nodes.clone(),
        machine,
        addresses: addresses.clone(),
        port,
        recorder,
        changed: changed.clone(),
        node_seen: informers.node_seen.clone(),
        pressure: pressure.clone(),
    });
    let node = tokio::spawn(heartbeat.run(shutdown.clone()));
    let recovered = recover(&cri, &shutdown).await;
    tokio::spawn(pleg::run(cri.clone(), msgs.clone(), shutdown.clone()));
    let longest = SignedDuration::try_from(config.max_container_restart_period);
    let longest_restart_delay = longest.unwrap_or(crate::backoff::LONGEST);
    let host_ips = addresses.texts();
    let settings = Settings { runtime_name, host_ips, longest_restart_delay, run: config.run.clone() };
    let state = Loop {
        hands,
        settings,
        workers: BTreeMap::new(),
        timers: BTreeSet::new(),
        recovered,
        pressure,
        node_changed: changed,
        runtime_changes,
        refreshes: BTreeSet::new(),
        refreshing: Refreshing::default(),
        msgs,
        statics: BTreeMap::new(),
        synced: false,
    };
    tokio::select! {
        () = state.run(inbox, shutdown.clone()) => Ok(()),
        ended = node => match ended {
            Ok(Err(error)) => Err(error),
            _ => Ok(()),
        },
    }
}

/// What has to be so of the host before anything is started.
fn prepare_host(config: &Config) -> Result<(), Error> {
    let differing = match config.protect_kernel_defaults {
        true => crate::kernel::differing("/proc/sys".as_ref()),
        false => Vec::new(),
    };
    if !differing.is_empty() {
        return Err(Error::Kernel(differing));
    }
    make_dir(&config.root_dir, 0o750)?;
    make_dir(&config.root_dir.join("pods"), 0o750)?;
    make_dir(&config.pod_logs_dir, 0o755)
}

fn make_dir(path: &std::path::Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| Error::File {
        what: "create directory",
        path: path.display().to_string(),
        source,
    })
}

struct Informers {
    services: Cache<Service>,
    nodes: Cache<Node>,
    node_seen: Arc<Notify>,
}

fn start_informers(
    config: &Config,
    client: &kube::Client,
    msgs: &UnboundedSender<Msg>,
    shutdown: &CancellationToken,
) -> Informers {
    let (services, _) = Informer::<Service>::new(Api::all(client.clone())).run(shutdown.clone());
    let own = watcher::Config::default().fields(&format!("metadata.name={}", config.node_name));
    let node_seen = Arc::new(Notify::new());
    let told = node_seen.clone();
    let (nodes, _) = Informer::<Node>::new(Api::all(client.clone()))
        .select(own)
        .on(move |_| told.notify_one())
        .run(shutdown.clone());
    let bound = watcher::Config::default().fields(&format!("spec.nodeName={}", config.node_name));
    let told = msgs.clone();
    let (pods, _) = Informer::<Pod>::new(Api::all(client.clone()))
        .select(bound)
        .on(move |delta| {
            let _ = told.send(Msg::Pod(delta.clone()));
        })
        .run(shutdown.clone());
    let told = msgs.clone();
    tokio::spawn(async move {
        pods.synced().await;
        let _ = told.send(Msg::Synced);
    });
    if let Some(dir) = config.static_pod_path.clone() {
        tokio::spawn(crate::static_pods::watch(dir, config.node_name.clone(), msgs.clone(), shutdown.clone()));
    }
    Informers { services, nodes, node_seen }
}

#[allow(clippy::too_many_arguments)]
fn hands(
    config: &Arc<Config>,
    cri: &Cri,
    client: &kube::Client,
    recorder: &EventRecorder,
    informers: &Informers,
    machine: &Machine,
    addresses: &Addresses,
    msgs: &UnboundedSender<Msg>,
) -> Arc<Hands> {
    let (answers, from_hands) = unbounded_channel();
    let (changes, from_objects) = unbounded_channel();
    forward(from_hands, msgs.clone(), Msg::Answer);
    forward(from_objects, msgs.clone(), Msg::Changed);
    let objects = Arc::new(Objects::new(client.clone(), changes));
    Arc::new(Hands {
        volumes: Arc::new(Volumes::new(config.clone(), objects.clone(), client.clone())),
        config: config.clone(),
        cri: cri.clone(),
        client: client.clone(),
        notes: crate::act::start_notes(recorder.clone(), Rate::new(config.event_record_qps, config.event_burst)),
        objects,
        services: informers.services.clone(),
        nodes: informers.nodes.clone(),
        cgroups: linux::cgroup::Cgroups::detect().ok(),
        node_memory: machine.memory,
        addresses: addresses.clone(),
        answers,
        image_users: Mutex::default(),
        mirrors: Mutex::default(),
        volume_images: Mutex::default(),
        probe_counts: Mutex::default(),
        pulls: config.serialize_image_pulls.then(|| tokio::sync::Semaphore::new(1)),
    })
}

fn forward<T: Send + 'static>(mut from: UnboundedReceiver<T>, to: UnboundedSender<Msg>, wrap: fn(T) -> Msg) {
    tokio::spawn(async move {
        while let Some(item) = from.recv().await {
            if to.send(wrap(item)).is_err() {
                return;
            }
        }
    });
}

/// The runtime's name, as soon as it answers. `None` on shutdown.
async fn wait_for_runtime(cri: &Cri, shutdown: &CancellationToken) -> Option<String> {
    let mut told = false;
    loop {
        match cri.runtime().version(cri::VersionRequest::default()).await {
            Ok(version) => return Some(version.into_inner().runtime_name),
            Err(error) if !told => {
                told = true;
                tracing::info!(error = shown(&error), "waiting for the container runtime");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(RUNTIME_RETRY) => {}
        }
    }
}

/// What the runtime has from before, by pod UID.
async fn recover(cri: &Cri, shutdown: &CancellationToken) -> HashMap<String, Observation> {
    loop {
        match pleg::list(cri).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(error = shown(&error), "the runtime did not list its pods, trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return HashMap::new(),
            () = tokio::time::sleep(RUNTIME_RETRY) => {}
        }
    }
}

struct Loop {
    hands: Arc<Hands>,
    settings: Settings,
    workers: BTreeMap<String, PodWorker>,
    timers: BTreeSet<(Timestamp, String)>,
    recovered: HashMap<String, Observation>,
    pressure: Arc<Mutex<Pressure>>,
    node_changed: Arc<Notify>,
    runtime_changes: watch::Sender<u64>,
    /// When volumes of a pod want to be brought up to date for their tokens.
    refreshes: BTreeSet<(Timestamp, String)>,
    refreshing: Refreshing,
    /// To itself.
    msgs: UnboundedSender<Msg>,
    /// Pods that files name, by UID.
    statics: BTreeMap<String, Arc<Pod>>,
    synced: bool,
}

impl Loop {
    async fn run(mut self, mut inbox: UnboundedReceiver<Msg>, shutdown: CancellationToken) {
        loop {
            let next = self.timers.first().into_iter().chain(self.refreshes.first()).map(|(at, _)| *at).min();
            let wait = next.map(|at| at.duration_since(Timestamp::now()));
            let sleep = wait.map(|w| Duration::try_from(w).unwrap_or(Duration::ZERO));
            let timer = async {
                match sleep {
                    Some(sleep) => tokio::time::sleep(sleep).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                msg = inbox.recv() => match msg {
                    Some(msg) => self.take(msg),
                    None => return,
                },
                () = timer => self.wake(),
            }
        }
    }

    fn take(&mut self, msg: Msg) {
        match msg {
            Msg::Pod(delta) => self.take_pod(delta),
            Msg::Static(found) => self.take_static(found),
            Msg::Synced => self.take_synced(),
            Msg::Answer((uid, event)) => self.take_answer(&uid, event),
            Msg::Runtime(message) => self.take_runtime(message),
            Msg::Changed(changed) => {
                for uid in changed.pods {
                    self.feed(&uid, Event::Refresh);
                    self.refresh_volumes(&uid);
                }
            }
            Msg::HostIps(ips) => self.take_host_ips(&ips),
            Msg::Refreshed(uid) => self.refresh_again(&uid),
            Msg::Query(query) => self.answer(query),
        }
    }

    fn take_pod(&mut self, delta: Delta<Pod>) {
        match delta {
            Delta::Added(pod) => self.update(pod),
            Delta::Updated { old, new } => {
                if pods::uid(&old) != pods::uid(&new) {
                    self.gone(&old);
                }
                self.update(new);
            }
            Delta::Deleted(pod) => self.gone(&pod),
        }
    }

    fn gone(&mut self, pod: &Arc<Pod>) {
        if pods::is_mirror(pod) {
            return self.mirror_gone(pod);
        }
        self.feed(pods::uid(pod), Event::Gone);
    }

    fn update(&mut self, pod: Arc<Pod>) {
        if pods::is_mirror(&pod) {
            return self.mirror(pod);
        }
        let uid = pods::uid(&pod).to_owned();
        let Some(worker) = self.workers.get(&uid) else { return self.begin(pod) };
        let labels_changed = worker.pod.metadata.labels != pod.metadata.labels
            || worker.pod.metadata.annotations != pod.metadata.annotations;
        self.feed(&uid, Event::Spec(pod));
        if labels_changed {
            self.refresh_volumes(&uid);
        }
    }

    /// A pod that is new here, or was here before this kubelet.
    fn begin(&mut self, pod: Arc<Pod>) {
        let uid = pods::uid(&pod).to_owned();
        let now = Timestamp::now();
        let found = self.recovered.remove(&uid);
        let known = found.is_some() || pods::is_terminal_phase(pods::phase(&pod));
        let admitted = if known || pod.metadata.deletion_timestamp.is_some() { Ok(()) } else { self.admit(&pod) };
        if let Err(verdict) = &admitted {
            self.hands.note(&pod, None, true, &verdict.reason, &verdict.message);
        }
        let admitted = admitted.map_err(|v| Verdict { message: format!("Pod was rejected: {}", v.message), ..v });
        self.workers.insert(uid.clone(), PodWorker::new(pod, self.settings.clone(), admitted, now));
        let Observation { sandbox, containers } = found.unwrap_or_default();
        self.feed(&uid, Event::Observed { sandbox, containers });
    }

    fn admit(&self, pod: &Pod) -> Result<(), Verdict> {
        let Some(node) = self.hands.nodes.get_in("", &self.hands.config.node_name) else { return Ok(()) };
        let others: Vec<&Pod> = self.workers.values().filter(|w| w.takes_room()).map(|w| w.pod.as_ref()).collect();
        admit::admit(
            pod,
            &Scene {
                node: &node,
                others: &others,
                unsafe_sysctls: &self.hands.config.allowed_unsafe_sysctls,
                pressure: *self.pressure.lock(),
            },
        )
    }

    /// One step of one worker.
    fn feed(&mut self, uid: &str, event: Event) {
        let Some(worker) = self.workers.remove(uid) else { return };
        let now = Timestamp::now();
        let old = worker.deadline_set;
        let (mut worker, actions) = worker.step(event, now);
        let next = worker.deadline(now);
        if old != next {
            old.map(|at| self.timers.remove(&(at, uid.to_owned())));
            next.map(|at| self.timers.insert((at, uid.to_owned())));
            worker.deadline_set = next;
        }
        let forget = actions.contains(&Action::Forget);
        for action in actions {
            self.hands.run(&worker, action);
        }
        if forget || worker.life == Life::Finished {
            next.map(|at| self.timers.remove(&(at, uid.to_owned())));
            self.refreshes.retain(|(_, u)| u != uid);
            self.refreshing.end(uid);
            self.hands.mirrors.lock().remove(uid);
            self.hands.probe_counts.lock().retain(|count, _| count.uid != uid);
            return;
        }
        self.workers.insert(uid.to_owned(), worker);
    }

    fn take_answer(&mut self, uid: &str, event: Event) {
        let mounted = matches!(event, Event::Mounted(Ok(())));
        let image = matches!(event, Event::Pulled { result: Ok(_), .. });
        self.feed(uid, event);
        if mounted {
            self.schedule_refresh(uid);
            self.refresh_again(uid);
        }
        if image {
            self.node_changed.notify_one();
        }
    }

    fn schedule_refresh(&mut self, uid: &str) {
        self.refreshes.retain(|(_, u)| u != uid);
        if let Some(at) = self.hands.volumes.next_refresh(uid) {
            self.refreshes.insert((at, uid.to_owned()));
        }
    }

    fn refresh_volumes(&mut self, uid: &str) {
        let Some(worker) = self.workers.get(uid).filter(|worker| worker.life == Life::Active) else { return };
        if !self.refreshing.begin(uid, worker.volumes == crate::worker::Task::Done) {
            return;
        }
        let (hands, pod, ips) = (self.hands.clone(), worker.pod.clone(), worker.ips.clone());
        let (msgs, uid) = (self.msgs.clone(), uid.to_owned());
        tokio::spawn(async move {
            let facts = hands.facts(ips);
            if let Err(message) = hands.volumes.refresh(&pod, &facts).await {
                tracing::debug!(message, pod = pods::shown(&pod), "volumes not brought up to date");
            }
            let _ = msgs.send(Msg::Refreshed(uid));
        });
    }

    fn refresh_again(&mut self, uid: &str) {
        if self.refreshing.end(uid) {
            self.refresh_volumes(uid);
        }
    }

    fn take_runtime(&mut self, message: pleg::Message) {
        self.runtime_changes.send_modify(|n| *n += 1);
        if message.uid().is_some_and(|uid| self.recovers(uid)) {
            return pleg::keep(&mut self.recovered, message);
        }
        match message {
            pleg::Message::Seen { uid, observation } => {
                let Observation { sandbox, containers } = observation;
                self.feed(&uid, Event::Observed { sandbox, containers });
            }
            pleg::Message::Vanished { uid, id } => self.feed(&uid, Event::Vanished { id }),
            pleg::Message::Lost => self.node_changed.notify_one(),
        }
    }

    /// The pod may be one from before this kubelet whose object is still to come.
    fn recovers(&self, uid: &str) -> bool {
        self.recovered.contains_key(uid) && !self.workers.contains_key(uid)
    }

    fn wake(&mut self) {
        let now = Timestamp::now();
        while let Some((at, uid)) = self.timers.first().cloned()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(worker) = self.workers.get_mut(&uid) {
                worker.deadline_set = None;
            }
            self.feed(&uid, Event::Tick);
        }
        while let Some((at, uid)) = self.refreshes.first().cloned()
            && at <= now
        {
            self.refreshes.pop_first();
            self.refresh_volumes(&uid);
            // The refresh runs beside the loop; look again soon for the token that it got.
            self.refreshes.insert((now.saturating_add(SignedDuration::from_secs(60)).unwrap_or(now), uid.clone()));
        }
    }

    /// What the runtime has of pods that are neither in the API nor in files is from another time.
    fn take_synced(&mut self) {
        self.synced = true;
        if self.hands.config.static_pod_path.is_none() {
            self.remove_orphans();
        }
    }

    fn remove_orphans(&mut self) {
        let mut uids: BTreeSet<String> = self.recovered.drain().map(|(uid, _)| uid).collect();
        let dirs = std::fs::read_dir(self.hands.config.root_dir.join("pods")).into_iter().flatten().flatten();
        uids.extend(dirs.map(|d| d.file_name().to_string_lossy().into_owned()));
        for uid in uids.into_iter().filter(|u| !self.workers.contains_key(u)) {
            let hands = self.hands.clone();
            tokio::spawn(async move {
                if let Err(error) = hands.remove_orphan(&uid).await {
                    tracing::warn!(error, uid, "what a former pod left is still there");
                }
            });
        }
    }

    fn answer(&mut self, query: Query) {
        match query {
            Query::Pods(reply) => {
                let all = self.workers.values().map(|w| {
                    let mut pod = Pod::clone(&w.pod);
                    pod.status = Some(w.known.clone());
                    Arc::new(pod)
                });
                let _ = reply.send(all.collect());
            }
            Query::Pod { namespace, name, uid, reply } => {
                let wanted = |w: &&PodWorker| {
                    pods::namespace(&w.pod) == namespace
                        && pods::name(&w.pod) == name
                        && uid.as_deref().is_none_or(|u| u == pods::uid(&w.pod))
                };
                // Of two pods of one name the one that is not being removed is meant.
                let found = self.workers.values().filter(wanted).max_by_key(|w| w.present);
                let _ = reply.send(found.cloned().map(Box::new));
            }
            Query::Workers(reply) => drop(reply.send(self.workers.values().cloned().collect())),
            Query::Ping(reply) => drop(reply.send(())),
        }
    }
}

/// The UID that labels of the runtime name.
pub fn uid_of(labels: &HashMap<String, String>) -> Option<&str> {
    labels.get(label::POD_UID).map(String::as_str).filter(|u| !u.is_empty())
}
