//! What a controller's `start` is given: shared informers (one per resource in the process), the client of its own
//! identity and the configuration. Starting has two halves: every `start` says what it watches; then the daemon runs
//! the informers, which fills the [`Shared`] caches.
//! I/O: holds informers and clients; called by `daemon` and by each controller's `start`.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use client::informer::Watched;
use client::{Cache, Delta, Executor, Informer, Key, WorkQueue};
use kube::runtime::watcher;
use kube::{Api, Resource};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::runner::Work;

/// Field manager of everything the controller manager writes, as upstream's user agent gives it.
pub const FIELD_MANAGER: &str = "kube-controller-manager";

/// Watches end after this long and start again from where they were; the longest that kube allows (it must stay below
/// 295 s), so that idle watches cost as little as can be.
const WATCH_SECONDS: u32 = 290;

/// A cache that is filled once all controllers have said what they watch.
pub struct Shared<K>(Arc<OnceLock<Cache<K>>>);

impl<K> Clone for Shared<K> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<K> Deref for Shared<K> {
    type Target = Cache<K>;

    fn deref(&self) -> &Cache<K> {
        self.0.get().expect("informers are started before workers and handlers")
    }
}

/// One cache, whatever its kind: what a worker needs to wait for its own writes.
pub trait View: Send + Sync {
    /// Group and plural.
    fn resource(&self) -> &(String, String);
    fn version(&self) -> watch::Receiver<u64>;
    /// The object with this uid is gone from the cache, or is seen to be going.
    fn deleted(&self, key: &Key, uid: Option<&str>) -> bool;
    fn synced(&self) -> futures::future::BoxFuture<'_, ()>;
}

struct Seen<K> {
    resource: (String, String),
    cache: Shared<K>,
}

impl<K: Watched> View for Seen<K> {
    fn resource(&self) -> &(String, String) {
        &self.resource
    }

    fn version(&self) -> watch::Receiver<u64> {
        self.cache.version()
    }

    fn deleted(&self, key: &Key, uid: Option<&str>) -> bool {
        let Some(object) = self.cache.get(key) else { return true };
        let meta = object.meta();
        meta.deletion_timestamp.is_some() || uid.is_some_and(|uid| meta.uid.as_deref() != Some(uid))
    }

    fn synced(&self) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(self.cache.0.get().expect("informers are started before workers").synced())
    }
}

trait Slot: Send {
    fn fill(&mut self);
    fn start(&mut self, shutdown: &CancellationToken);
    fn view(&self) -> Arc<dyn View>;
    fn any(&mut self) -> &mut dyn Any;
}

struct TypedSlot<K> {
    informer: Option<Informer<K>>,
    cache: Shared<K>,
    resource: (String, String),
}

impl<K: Watched> Slot for TypedSlot<K> {
    fn fill(&mut self) {
        if let Some(informer) = &mut self.informer {
            let _ = self.cache.0.set(informer.cache());
        }
    }

    fn start(&mut self, shutdown: &CancellationToken) {
        if let Some(informer) = self.informer.take() {
            let _ = informer.run(shutdown.clone());
        }
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(Seen { resource: self.resource.clone(), cache: self.cache.clone() })
    }

    fn any(&mut self) -> &mut dyn Any {
        self
    }
}

/// The informers of the process, by what they watch.
pub struct Informers {
    client: kube::Client,
    slots: HashMap<(TypeId, &'static str), Box<dyn Slot>>,
}

impl Informers {
    pub fn new(client: kube::Client) -> Informers {
        Informers { client, slots: HashMap::new() }
    }

    fn slot<K>(&mut self, selector: Selector) -> &mut TypedSlot<K>
    where
        K: Watched + Resource<DynamicType = ()>,
    {
        let client = self.client.clone();
        let slot = self.slots.entry((TypeId::of::<K>(), selector.0)).or_insert_with(|| {
            let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
            if !selector.0.is_empty() {
                config = config.fields(selector.0);
            }
            Box::new(TypedSlot::<K> {
                informer: Some(Informer::new(Api::all(client)).select(config)),
                cache: Shared(Arc::default()),
                resource: (K::group(&()).into_owned(), K::plural(&()).into_owned()),
            })
        });
        slot.any().downcast_mut().expect("slots are keyed by their type")
    }

    /// Starts every informer; the shared caches can be read from here on.
    pub fn start(&mut self, shutdown: &CancellationToken) {
        // Handlers read each other's caches: all must be there before the first handler is called.
        self.slots.values_mut().for_each(|slot| slot.fill());
        self.slots.values_mut().for_each(|slot| slot.start(shutdown));
    }
}

/// A field selector; empty for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Selector(pub &'static str);

/// What `start` of one controller works with.
pub struct Setup<'a> {
    pub config: &'a Arc<Config>,
    name: &'static str,
    informers: &'a mut Informers,
    client: kube::Client,
    shutdown: CancellationToken,
    views: Vec<Arc<dyn View>>,
    work: Vec<Work>,
}

/// What a controller wants run once the informers are.
pub struct Started {
    pub name: &'static str,
    pub views: Vec<Arc<dyn View>>,
    pub work: Vec<Work>,
}

impl<'a> Setup<'a> {
    /// `client` carries the identity of this controller.
    pub fn new(
        name: &'static str,
        config: &'a Arc<Config>,
        informers: &'a mut Informers,
        client: kube::Client,
        shutdown: CancellationToken,
    ) -> Setup<'a> {
        Setup { config, name, informers, client, shutdown, views: Vec::new(), work: Vec::new() }
    }

    /// The client with this controller's identity, for the few that must ask the server itself.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The client of the shared informers, which may list and watch everything.
    pub fn root_client(&self) -> kube::Client {
        self.informers.client.clone()
    }

    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Watches all objects of a kind.
    pub fn watch<K: Watched + Resource<DynamicType = ()>>(&mut self) -> Shared<K> {
        self.watch_selected(Selector::default())
    }

    pub fn watch_selected<K: Watched + Resource<DynamicType = ()>>(&mut self, selector: Selector) -> Shared<K> {
        let slot = self.informers.slot::<K>(selector);
        let (cache, view) = (slot.cache.clone(), slot.view());
        if !self.views.iter().any(|v| v.resource() == view.resource()) {
            self.views.push(view);
        }
        cache
    }

    /// Adds an index; the same name must mean the same to everyone.
    pub fn index<K: Watched + Resource<DynamicType = ()>>(&mut self, name: &'static str, keys: fn(&K) -> Vec<String>) {
        self.index_selected(Selector::default(), name, keys);
    }

    pub fn index_selected<K: Watched + Resource<DynamicType = ()>>(
        &mut self,
        selector: Selector,
        name: &'static str,
        keys: fn(&K) -> Vec<String>,
    ) {
        let slot = self.informers.slot::<K>(selector);
        slot.informer = slot.informer.take().map(|i| i.index(name, keys));
    }

    /// Calls `handler` for each change of a kind.
    pub fn on<K>(&mut self, handler: impl Fn(&Delta<K>) + Send + 'static) -> Shared<K>
    where
        K: Watched + Resource<DynamicType = ()>,
    {
        self.on_selected(Selector::default(), handler)
    }

    pub fn on_selected<K>(&mut self, selector: Selector, handler: impl Fn(&Delta<K>) + Send + 'static) -> Shared<K>
    where
        K: Watched + Resource<DynamicType = ()>,
    {
        let slot = self.informers.slot::<K>(selector);
        slot.informer = slot.informer.take().map(|i| i.on(handler));
        self.watch_selected(selector)
    }

    /// Queues each changed object itself.
    pub fn queue_own<K: Watched + Resource<DynamicType = ()>>(&mut self, queue: &WorkQueue<Key>) -> Shared<K> {
        let queue = queue.clone();
        self.on(move |delta: &Delta<K>| queue.add(Key::of(delta.object().as_ref())))
    }

    /// The executor of this controller; its events come from `component`.
    pub fn executor(&self, component: &str) -> Executor {
        Executor::new(self.client.clone(), FIELD_MANAGER).reporting(component)
    }

    /// Has the daemon work through a queue.
    pub fn run(&mut self, work: Work) {
        self.work.push(work);
    }

    pub fn finish(self) -> Started {
        Started { name: self.name, views: self.views, work: self.work }
    }
}
