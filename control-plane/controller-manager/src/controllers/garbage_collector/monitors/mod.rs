//! One metadata watch per resource that can be deleted, kept in step with discovery: looked at again when custom
//! resources or API services change. I/O: discovery and watches, as the manager's identity.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Collector;
use super::graph::{Item, Wake};

/// Watches end after this long and go on from where they were; kube allows less than 295 s.
const WATCH_SECONDS: u32 = 290;
/// From a change of the served kinds until discovery shows it; looked at again after the other, if no change comes first.
const SETTLE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(5)];
/// Discovery may take this part of the time, while kinds change without end.
const SHARE: u32 = 10;
/// A kind whose objects the server does not list is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Failed discovery is tried again after this long.
const RETRY: Duration = Duration::from_secs(2);

type Name = (String, String);
/// A resource, and whether it is namespaced.
type Served = (Arc<ApiResource>, bool);

struct Monitor {
    resource: Arc<ApiResource>,
    namespaced: bool,
    stop: CancellationToken,
    synced: watch::Receiver<bool>,
    /// The last that was heard is a refusal: it waits before it tries again.
    failing: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

/// What a watch has told the graph. Whoever watches the kind next takes it over; a stopped watch changes nothing more.
#[derive(Default)]
struct Seen {
    uids: HashSet<String>,
    /// Counts those who took over.
    turn: u64,
}

/// One watch while it runs.
struct Watching {
    resource: Arc<ApiResource>,
    synced: watch::Sender<bool>,
    failing: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    turn: u64,
}

/// The running watches. Cheap to clone.
#[derive(Clone)]
pub struct Monitors {
    client: kube::Client,
    collector: Collector,
    running: Arc<Mutex<BTreeMap<Name, Monitor>>>,
    /// Version and kind, as references say them, to resource; also of kinds that can't be watched.
    kinds: Arc<Mutex<HashMap<Name, Served>>>,
    waiting: Arc<Mutex<HashSet<Wake>>>,
    changed: Arc<Notify>,
    ready: watch::Sender<bool>,
    shutdown: CancellationToken,
}

impl Monitors {
    pub fn start(client: kube::Client, collector: Collector, shutdown: CancellationToken) -> Monitors {
        let monitors = Monitors {
            client,
            collector,
            running: Arc::default(),
            kinds: Arc::default(),
            waiting: Arc::default(),
            changed: Arc::new(Notify::new()),
            ready: watch::channel(false).0,
            shutdown: shutdown.clone(),
        };
        let follower = monitors.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.follow() => {}
            }
        });
        monitors
    }

    /// Waits until every watch has listed what there is: before that, what looks ownerless may not be.
    pub async fn synced(&self) {
        let mut ready = self.ready.subscribe();
        let _ = ready.wait_for(|r| *r).await;
        loop {
            let pending = self.running.lock().values().find(|m| !*m.synced.borrow()).map(|m| m.synced.clone());
            let Some(mut pending) = pending else { return };
            // An error means that the monitor was stopped: its kind is not served any more, or another watches it.
            let _ = pending.wait_for(|done| *done).await;
        }
    }

    /// The resource of an owner's kind, and whether it is namespaced.
    pub fn resource_of(&self, owner: &OwnerReference) -> Option<(ApiResource, bool)> {
        let kinds = self.kinds.lock();
        let (resource, namespaced) = kinds.get(&(owner.api_version.clone(), owner.kind.clone()))?;
        Some(((**resource).clone(), *namespaced))
    }

    pub fn is_namespaced(&self, owner: &OwnerReference) -> Option<bool> {
        self.resource_of(owner).map(|(_, namespaced)| namespaced)
    }

    /// Looks at this again when other kinds are served.
    pub fn wait_for_kind(&self, wake: Wake, owner: &OwnerReference) {
        self.waiting.lock().insert(wake.clone());
        // Discovery may have shown it, and woken who waited, between the question and now.
        if self.resource_of(owner).is_some() {
            self.collector.queue.add(wake.key());
        }
    }

    async fn follow(&self) {
        loop {
            let begun = Instant::now();
            if let Err(error) = self.discover().await {
                tracing::debug!(%error, "discovery failed, trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            self.ready.send_replace(true);
            tokio::time::sleep(begun.elapsed() * SHARE).await;
            let again = tokio::time::timeout(SETTLE[1], self.changed.notified()).await;
            if again.is_err() {
                if let Err(error) = self.discover().await {
                    tracing::debug!(%error, "discovery failed, trying again");
                }
                self.changed.notified().await;
            }
            tokio::time::sleep(SETTLE[0]).await;
        }
    }

    async fn discover(&self) -> kube::Result<()> {
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await?;
        let mut wanted: BTreeMap<Name, Served> = BTreeMap::new();
        let mut kinds = HashMap::new();
        for group in discovery.groups() {
            for (resource, can) in group.versions().flat_map(|v| group.versioned_resources(v)) {
                let namespaced = can.scope == Scope::Namespaced;
                kinds.insert((resource.api_version.clone(), resource.kind.clone()), (Arc::new(resource), namespaced));
            }
            for (resource, can) in group.resources_by_stability() {
                let all = [verbs::LIST, verbs::WATCH, verbs::DELETE];
                // Events are many, own nothing and age out by themselves.
                if resource.plural != "events" && all.iter().all(|v| can.supports_operation(v)) {
                    let name = (resource.group.clone(), resource.plural.clone());
                    wanted.insert(name, (Arc::new(resource), can.scope == Scope::Namespaced));
                }
            }
        }
        *self.kinds.lock() = kinds;
        self.adjust(wanted);
        let waiting: Vec<Wake> = self.waiting.lock().drain().collect();
        waiting.into_iter().for_each(|w| self.collector.queue.add(w.key()));
        Ok(())
    }

    /// Watches what is wanted and nothing else. A watch that was refused (its kind went, and may be made anew) starts
    /// over instead of waiting, longer each time, for what is there by now.
    fn adjust(&self, mut wanted: BTreeMap<Name, Served>) {
        let mut running = self.running.lock();
        running.retain(|name, monitor| {
            let Some((resource, namespaced)) = wanted.get(name) else {
                monitor.stop.cancel();
                let mut seen = monitor.seen.lock();
                seen.turn += 1;
                // A kind that is not served says nothing of its objects: who depends on them asks for itself.
                seen.uids.drain().for_each(|uid| self.collector.change(|g| g.missing(&uid)));
                return false;
            };
            let same = *resource == monitor.resource && *namespaced == monitor.namespaced;
            if same && !monitor.failing.load(Ordering::Relaxed) {
                wanted.remove(name);
            }
            true
        });
        for (name, (resource, namespaced)) in wanted {
            let before = running.remove(&name);
            let seen = before.as_ref().map(|m| m.seen.clone()).unwrap_or_default();
            if let Some(before) = before {
                before.stop.cancel();
            }
            running.insert(name, self.monitor(resource, namespaced, seen));
        }
    }

    fn monitor(&self, resource: Arc<ApiResource>, namespaced: bool, seen: Arc<Mutex<Seen>>) -> Monitor {
        let stop = self.shutdown.child_token();
        let (done, synced) = watch::channel(false);
        let turn = {
            let mut seen = seen.lock();
            seen.turn += 1;
            seen.turn
        };
        let failing = Arc::new(AtomicBool::new(false));
        let monitor = Monitor { resource, namespaced, stop, synced, failing, seen };
        let (resource, failing, seen) = (monitor.resource.clone(), monitor.failing.clone(), monitor.seen.clone());
        let watching = Watching { resource, synced: done, failing, seen, turn };
        let (this, stopped) = (self.clone(), monitor.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = this.watch(&watching) => {}
                () = async {
                    tokio::time::sleep(PATIENCE).await;
                    watching.synced.send_replace(true);
                    std::future::pending().await
                } => {}
            }
        });
        monitor
    }

    async fn watch(&self, watching: &Watching) {
        let resource = &watching.resource;
        let api: Api<client::Item<PartialObjectMeta<DynamicObject>>> =
            Api::all_with(self.client.clone(), resource.as_ref());
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let stream = watcher(api, config).default_backoff();
        futures::pin_mut!(stream);
        let mut listing = HashSet::new();
        let tells_kinds = matches!(resource.plural.as_str(), "customresourcedefinitions" | "apiservices");
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    tracing::debug!(%error, resource = resource.plural, "watch failed, trying again");
                    watching.failing.store(true, Ordering::Relaxed);
                    // Not served: there is nothing of it to wait for.
                    if is_missing(&error) {
                        watching.synced.send_replace(true);
                    }
                    continue;
                }
            };
            watching.failing.store(false, Ordering::Relaxed);
            let mut seen = watching.seen.lock();
            if seen.turn != watching.turn {
                return;
            }
            let changes = matches!(event, watcher::Event::Apply(_) | watcher::Event::Delete(_));
            match event {
                watcher::Event::Init => listing.clear(),
                watcher::Event::InitApply(object) => listing.extend(self.seen(resource, &object)),
                watcher::Event::InitDone => {
                    let now = std::mem::take(&mut listing);
                    seen.uids.difference(&now).for_each(|uid| self.collector.change(|g| g.missing(uid)));
                    seen.uids = now;
                    watching.synced.send_replace(true);
                }
                watcher::Event::Apply(object) => seen.uids.extend(self.seen(resource, &object)),
                watcher::Event::Delete(object) => {
                    if let Some(uid) = &object.meta().uid {
                        seen.uids.remove(uid);
                        self.collector.change(|g| g.deleted(uid));
                    }
                }
            }
            if tells_kinds && changes {
                self.changed.notify_one();
            }
        }
    }

    /// The uid of what the collector knows now. Of an object whose metadata can't be read it keeps what it knew.
    fn seen(
        &self,
        resource: &Arc<ApiResource>,
        object: &client::Item<PartialObjectMeta<DynamicObject>>,
    ) -> Option<String> {
        let uid = object.meta().uid.clone()?;
        let Ok(object) = object.read() else { return Some(uid) };
        let item = Item::of(resource, &object.metadata);
        self.collector.change(|g| g.seen(&uid, item));
        Some(uid)
    }
}

/// The server knows no such path.
fn is_missing(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error)) = error else { return false };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
