//! The kubelet's loop, upstream's syncLoop: every message in the order in which it came, one worker a pod, actions out.
//! The only place that changes workers, so they need no locks. Boring: workers decide (`worker`), the executor acts (`act`).
//! I/O: waits, reads the clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::Delta;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::act::Executor;
use crate::messages::{Message, NodeSignals, Query};
use crate::pod::admit::{self, Scene};
use crate::pod::pods;
use crate::pod::verdict::Verdict;
use crate::worker::observation::{self, LifecycleEvent, Observation};
use crate::worker::{Action, Event, Life, PodWorker, Settings};

/// What the loop knows.
pub(super) struct Loop {
    pub(super) executor: Arc<Executor>,
    pub(super) settings: Settings,
    pub(super) workers: BTreeMap<String, PodWorker>,
    timers: BTreeSet<(Timestamp, String)>,
    /// What the runtime has of pods whose objects are still to come, by UID.
    recovered: HashMap<String, Observation>,
    pub(super) node: NodeSignals,
    runtime_changes: watch::Sender<u64>,
    /// Pods that files name, by UID.
    pub(super) statics: BTreeMap<String, Arc<Pod>>,
    pub(super) synced: bool,
}

impl Loop {
    /// A loop that knows of no pod yet. `recovered`: what the runtime has from before.
    pub(super) fn new(
        executor: Arc<Executor>,
        settings: Settings,
        recovered: HashMap<String, Observation>,
        node: NodeSignals,
        runtime_changes: watch::Sender<u64>,
    ) -> Loop {
        Loop {
            executor,
            settings,
            workers: BTreeMap::new(),
            timers: BTreeSet::new(),
            recovered,
            node,
            runtime_changes,
            statics: BTreeMap::new(),
            synced: false,
        }
    }

    pub(super) async fn run(mut self, mut inbox: UnboundedReceiver<Message>, shutdown: CancellationToken) {
        loop {
            let wait = self.timers.first().map(|(at, _)| at.duration_since(Timestamp::now()));
            let sleep = wait.map(|w| Duration::try_from(w).unwrap_or(Duration::ZERO));
            let timer = async {
                match sleep {
                    Some(sleep) => tokio::time::sleep(sleep).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = timer => self.wake(),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Pod(delta) => self.take_pod(delta),
            Message::Static(found) => self.take_static(found),
            Message::Synced => self.take_synced(),
            Message::Answer { uid, event } => self.take_answer(&uid, event),
            Message::Runtime(event) => self.take_runtime(event),
            Message::Changed { pods } => {
                self.executor.volumes.changed(&pods);
                for uid in pods {
                    self.feed(&uid, Event::Refresh);
                }
            }
            Message::HostIps(ips) => self.take_host_ips(&ips),
            Message::Query(query) => self.answer(query),
        }
    }

    fn take_pod(&mut self, delta: Delta<Pod>) {
        match delta {
            Delta::Added(pod) | Delta::Updated { new: pod, .. } => self.update(pod),
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
        if labels_changed && let Some(worker) = self.workers.get(&uid) {
            self.executor.volumes.updated(&worker.pod, self.executor.facts(worker.ips.clone()));
        }
    }

    /// A pod that is new here, or was here before this kubelet.
    pub(super) fn begin(&mut self, pod: Arc<Pod>) {
        let uid = pods::uid(&pod).to_owned();
        let now = Timestamp::now();
        let found = self.recovered.remove(&uid);
        let known = found.is_some() || pods::is_terminal_phase(pods::phase(&pod));
        let admitted = if known || pod.metadata.deletion_timestamp.is_some() { Ok(()) } else { self.admit(&pod) };
        if let Err(verdict) = &admitted {
            self.executor.note(&pod, None, true, &verdict.reason, &verdict.message);
        }
        let admitted = admitted.map_err(|v| Verdict { message: format!("Pod was rejected: {}", v.message), ..v });
        self.workers.insert(uid.clone(), PodWorker::new(pod, self.settings.clone(), admitted, now));
        let Observation { sandbox, containers } = found.unwrap_or_default();
        self.feed(&uid, Event::Observed { sandbox, containers });
    }

    fn admit(&self, pod: &Pod) -> Result<(), Verdict> {
        let Some(node) = self.executor.nodes.get_in("", &self.executor.config.node_name) else { return Ok(()) };
        let others: Vec<&Pod> = self.workers.values().filter(|w| w.takes_room()).map(|w| w.pod.as_ref()).collect();
        admit::admit(
            pod,
            &Scene {
                node: &node,
                others: &others,
                unsafe_sysctls: &self.executor.config.allowed_unsafe_sysctls,
                pressure: *self.node.pressure.lock(),
                leaving: self.node.leaving.load(Ordering::Acquire),
            },
        )
    }

    /// One step of one worker.
    pub(super) fn feed(&mut self, uid: &str, event: Event) {
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
            self.executor.run(&worker, action);
        }
        if forget || worker.life == Life::Finished {
            next.map(|at| self.timers.remove(&(at, uid.to_owned())));
            self.executor.found.mirrors.lock().remove(uid);
            self.executor.found.probe_counts.lock().retain(|count, _| count.uid != uid);
            return;
        }
        self.workers.insert(uid.to_owned(), worker);
    }

    fn take_answer(&mut self, uid: &str, event: Event) {
        let image = matches!(event, Event::Pulled { result: Ok(_), .. });
        self.feed(uid, event);
        if image {
            self.node.changed.notify_one();
        }
    }

    fn take_runtime(&mut self, event: LifecycleEvent) {
        self.runtime_changes.send_modify(|n| *n += 1);
        if event.uid().is_some_and(|uid| self.recovers(uid)) {
            return observation::keep(&mut self.recovered, event);
        }
        match event {
            LifecycleEvent::Seen { uid, observation } => {
                let Observation { sandbox, containers } = observation;
                self.feed(&uid, Event::Observed { sandbox, containers });
            }
            LifecycleEvent::Vanished { uid, id } => self.feed(&uid, Event::Vanished { id }),
            LifecycleEvent::Lost => self.node.changed.notify_one(),
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
    }

    /// What the runtime has of pods that are neither in the API nor in files is from another time.
    fn take_synced(&mut self) {
        self.synced = true;
        if self.executor.config.static_pod_path.is_none() {
            self.remove_orphans();
        }
    }

    pub(super) fn remove_orphans(&mut self) {
        let mut uids: BTreeSet<String> = self.recovered.drain().map(|(uid, _)| uid).collect();
        uids.extend(self.executor.volumes.pods());
        for uid in uids.into_iter().filter(|u| !self.workers.contains_key(u)) {
            let executor = self.executor.clone();
            tokio::spawn(async move {
                if let Err(error) = executor.remove_orphan(&uid).await {
                    tracing::warn!(error, uid, "what a former pod left is still there");
                }
            });
        }
    }

    /// Who asked and went away meanwhile needs no answer.
    fn answer(&mut self, query: Query) {
        match query {
            Query::Pods(reply) => {
                let all = self.workers.values().map(|w| {
                    let mut pod = Pod::clone(&w.pod);
                    pod.status = Some(w.known.clone());
                    Arc::new(pod)
                });
                drop(reply.send(all.collect()));
            }
            Query::Pod { namespace, name, uid, reply } => {
                let wanted = |w: &&PodWorker| {
                    pods::namespace(&w.pod) == namespace
                        && pods::name(&w.pod) == name
                        && uid.as_deref().is_none_or(|u| u == pods::uid(&w.pod))
                };
                // Of two pods of one name the one that is not being removed is meant.
                let found = self.workers.values().filter(wanted).max_by_key(|w| w.present);
                drop(reply.send(found.cloned().map(Box::new)));
            }
            Query::Workers(reply) => drop(reply.send(self.workers.values().cloned().collect())),
            Query::Ping(reply) => drop(reply.send(())),
        }
    }
}
