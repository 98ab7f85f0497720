//! One metadata watch per resource that can be deleted, kept in step with discovery: looked at again when custom
//! resources or API services change. I/O: discovery and watches, as the manager's identity.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
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
use tokio_util::sync::CancellationToken;

use super::Collector;
use super::graph::{Item, Wake};

/// Watches end after this long and go on from where they were; kube allows less than 295 s.
const WATCH_SECONDS: u32 = 290;
/// From a change of the served kinds until discovery shows it: looked at after each.
const SETTLE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(5)];
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
}

/// The running watches. Cheap to clone.
#[derive(Clone)]
pub struct Monitors {
    client: kube::Client,
    collector: Collector,
    running: Arc<Mutex<BTreeMap<Name, Monitor>>>,
    /// Group and kind to resource, also of kinds that can't be watched.
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
            // An error means that the monitor was stopped: its kind is not served any more.
            let _ = pending.wait_for(|done| *done).await;
        }
    }

    /// The resource of an owner's kind, and whether it is namespaced.
    pub fn resource_of(&self, owner: &OwnerReference) -> Option<(ApiResource, bool)> {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let kinds = self.kinds.lock();
        let (resource, namespaced) = kinds.get(&(group.to_owned(), owner.kind.clone()))?;
        Some(((**resource).clone(), *namespaced))
    }

    pub fn is_namespaced(&self, owner: &OwnerReference) -> Option<bool> {
        self.resource_of(owner).map(|(_, namespaced)| namespaced)
    }

    /// Looks at this again when other kinds are served.
    pub fn wait_for_kind(&self, wake: Wake) {
        self.waiting.lock().insert(wake);
    }

    async fn follow(&self) {
        loop {
            match self.discover().await {
                Ok(()) => {
                    self.ready.send_replace(true);
                    let waiting: Vec<Wake> = self.waiting.lock().drain().collect();
                    waiting.into_iter().for_each(|w| self.collector.queue.add(w.key()));
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed, trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            self.changed.notified().await;
            for wait in SETTLE {
                tokio::time::sleep(wait).await;
                if let Err(error) = self.discover().await {
                    tracing::debug!(%error, "discovery failed, trying again");
                }
            }
        }
    }

    async fn discover(&self) -> kube::Result<()> {
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await?;
        let mut wanted: BTreeMap<Name, Served> = BTreeMap::new();
        let mut kinds = HashMap::new();
        for (resource, can) in discovery.groups().flat_map(|g| g.resources_by_stability()) {
            let namespaced = can.scope == Scope::Namespaced;
            let resource = Arc::new(resource);
            kinds.insert((resource.group.clone(), resource.kind.clone()), (resource.clone(), namespaced));
            let all = [verbs::LIST, verbs::WATCH, verbs::DELETE];
            // Events are many, own nothing and age out by themselves.
            if resource.plural != "events" && all.iter().all(|v| can.supports_operation(v)) {
                wanted.insert((resource.group.clone(), resource.plural.clone()), (resource, namespaced));
            }
        }
        *self.kinds.lock() = kinds;
        self.adjust(wanted);
        Ok(())
    }

    fn adjust(&self, wanted: BTreeMap<Name, Served>) {
        let mut running = self.running.lock();
        running.retain(|name, monitor| {
            let kept = wanted.get(name).is_some_and(|(r, n)| *r == monitor.resource && *n == monitor.namespaced);
            if !kept {
                monitor.stop.cancel();
            }
            kept
        });
        for (name, (resource, namespaced)) in wanted {
            running.entry(name).or_insert_with(|| self.monitor(resource, namespaced));
        }
    }

    fn monitor(&self, resource: Arc<ApiResource>, namespaced: bool) -> Monitor {
        let stop = self.shutdown.child_token();
        let (done, synced) = watch::channel(false);
        let (this, stopped, watched) = (self.clone(), stop.clone(), resource.clone());
        tokio::spawn(async move {
            let mut seen = HashSet::new();
            tokio::select! {
                () = stopped.cancelled() => {}
                () = this.watch(&watched, &mut seen, &done) => {}
            }
            if !this.shutdown.is_cancelled() {
                // The kind is not served any more: what was of it is gone with it.
                seen.iter().for_each(|uid| this.collector.change(|g| g.deleted(uid)));
            }
        });
        Monitor { resource, namespaced, stop, synced }
    }

    async fn watch(&self, resource: &Arc<ApiResource>, seen: &mut HashSet<String>, done: &watch::Sender<bool>) {
        let api: Api<client::Item<PartialObjectMeta<DynamicObject>>> =
            Api::all_with(self.client.clone(), resource.as_ref());
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let stream = watcher(api, config).default_backoff();
        futures::pin_mut!(stream);
        let mut listing = HashSet::new();
        let tells_kinds = matches!(resource.plural.as_str(), "customresourcedefinitions" | "apiservices");
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listing.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    listing.extend(self.seen(resource, &object));
                }
                Ok(watcher::Event::InitDone) => {
                    let now = std::mem::take(&mut listing);
                    seen.difference(&now).for_each(|uid| self.collector.change(|g| g.missing(uid)));
                    *seen = now;
                    done.send_replace(true);
                }
                Ok(watcher::Event::Apply(object)) => {
                    seen.extend(self.seen(resource, &object));
                    if tells_kinds {
                        self.changed.notify_one();
                    }
                }
                Ok(watcher::Event::Delete(object)) => {
                    if let Some(uid) = &object.meta().uid {
                        seen.remove(uid);
                        self.collector.change(|g| g.deleted(uid));
                    }
                    if tells_kinds {
                        self.changed.notify_one();
                    }
                }
                Err(error) => tracing::debug!(%error, resource = resource.plural, "watch failed, trying again"),
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
        let client::Item::Read(object) = object else { return Some(uid) };
        let item = Item::of(resource, &object.metadata);
        self.collector.change(|g| g.seen(&uid, item));
        Some(uid)
    }
}
