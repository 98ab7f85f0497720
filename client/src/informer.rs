//! List and watch one resource into a shared cache, and tell handlers what changed. Every component that reacts to
//! the API starts one informer per resource and reads the cache from its decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::item::{self, Item};

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds. Prints as upstream's queue key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<K: Resource>(object: &K) -> Key {
        Key::new(object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// One change of the cache, told after the cache holds it.
#[derive(Debug, Clone)]
pub enum Delta<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Delta<K> {
    /// The object as it is now, or as it last was.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Delta::Added(o) | Delta::Updated { new: o, .. } | Delta::Deleted(o) => o,
        }
    }
}

type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;
type Handler<K> = Box<dyn Fn(&Delta<K>) + Send>;

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: HashMap<&'static str, BTreeMap<String, BTreeSet<Key>>>,
}

/// A read view of one resource, shared by everyone in the component. Cheap to clone.
pub struct Cache<K> {
    state: Arc<RwLock<State<K>>>,
    index_fns: Arc<HashMap<&'static str, IndexFn<K>>>,
    synced: watch::Receiver<bool>,
    version: watch::Receiver<u64>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Cache {
            state: self.state.clone(),
            index_fns: self.index_fns.clone(),
            synced: self.synced.clone(),
            version: self.version.clone(),
        }
    }
}

impl<K> Cache<K> {
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    pub fn get_in(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&Key::new(namespace, name))
    }

    /// All objects, by key.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// All objects of one namespace, by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = Key::new(namespace, "");
        let state = self.state.read();
        state.objects.range(from..).take_while(|(k, _)| k.namespace == namespace).map(|(_, v)| v.clone()).collect()
    }

    /// Whether there is any object of a namespace.
    pub fn has_in(&self, namespace: &str) -> bool {
        let state = self.state.read();
        state.objects.range(Key::new(namespace, "")..).next().is_some_and(|(key, _)| key.namespace == namespace)
    }

    /// Objects whose index function `index` gave `value`.
    pub fn by(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let keys = state.indexes.get(index).and_then(|i| i.get(value));
        keys.into_iter().flatten().filter_map(|k| state.objects.get(k).cloned()).collect()
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the first list is in the cache (or the informer is gone).
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        let _ = synced.wait_for(|done| *done).await;
    }

    /// The newest resource version that the cache has taken in; it changes after the handlers were told. Lets a writer
    /// wait until the cache shows its own write.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }

    fn put(&self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let mut state = self.state.write();
        let old = state.objects.insert(key.clone(), object.clone());
        for (name, keys_of) in self.index_fns.iter() {
            let index = state.indexes.entry(name).or_default();
            for value in old.iter().flat_map(|o| keys_of(o)) {
                unindex(index, &value, &key);
            }
            for value in keys_of(&object) {
                index.entry(value).or_default().insert(key.clone());
            }
        }
        old
    }

    fn remove(&self, key: &Key) -> Option<Arc<K>> {
        let mut state = self.state.write();
        let old = state.objects.remove(key)?;
        for (name, keys_of) in self.index_fns.iter() {
            let index = state.indexes.entry(name).or_default();
            for value in keys_of(&old) {
                unindex(index, &value, key);
            }
        }
        Some(old)
    }
}

fn unindex(index: &mut BTreeMap<String, BTreeSet<Key>>, value: &str, key: &Key) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

/// What an informer can watch.
pub trait Watched: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static> Watched for K {}

/// An informer being configured; [`Informer::run`] starts it.
pub struct Informer<K> {
    api: Api<K>,
    config: watcher::Config,
    handlers: Vec<Handler<K>>,
    indexes: HashMap<&'static str, IndexFn<K>>,
    cache: Cache<K>,
    synced: watch::Sender<bool>,
    version: watch::Sender<u64>,
    trim: fn(&mut K),
}

impl<K: Watched> Informer<K> {
    pub fn new(api: Api<K>) -> Informer<K> {
        let (synced, seen) = watch::channel(false);
        let (version, newest) = watch::channel(0);
        let state = Arc::new(RwLock::new(State { objects: BTreeMap::new(), indexes: HashMap::new() }));
        Informer {
            api,
            config: watcher::Config::default(),
            handlers: Vec::new(),
            indexes: HashMap::new(),
            cache: Cache { state, index_fns: Arc::default(), synced: seen, version: newest },
            synced,
            version,
            trim: drop_managed_fields,
        }
    }

    /// Narrows what is watched: field or label selectors.
    pub fn select(mut self, config: watcher::Config) -> Self {
        self.config = config;
        self
    }

    /// Adds an index for [`Cache::by`].
    pub fn index(mut self, name: &'static str, keys_of: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.indexes.insert(name, Box::new(keys_of));
        self
    }

    /// Changes what is dropped before an object is cached (default: `managedFields`).
    pub fn trim(mut self, trim: fn(&mut K)) -> Self {
        self.trim = trim;
        self
    }

    /// Calls `handler` for each change, in order, in the informer's task: it must not block.
    pub fn on(mut self, handler: impl Fn(&Delta<K>) + Send + 'static) -> Self {
        self.handlers.push(Box::new(handler));
        self
    }

    /// The cache, before anything fills it: for handlers that read the caches of several informers. Indexes must be
    /// added before.
    pub fn cache(&mut self) -> Cache<K> {
        if !self.indexes.is_empty() {
            self.cache.index_fns = Arc::new(std::mem::take(&mut self.indexes));
        }
        self.cache.clone()
    }

    /// Starts listing and watching; ends with `shutdown`.
    pub fn run(mut self, shutdown: CancellationToken) -> (Cache<K>, JoinHandle<()>) {
        let cache = self.cache();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.follow() => {}
            }
        });
        (cache, task)
    }

    async fn follow(self) {
        let stream = watcher(item::api(&self.api), self.config.clone()).default_backoff();
        futures::pin_mut!(stream);
        let mut listing: Option<BTreeSet<Key>> = None;
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => self.take(event, &mut listing),
                Err(error) => tracing::debug!(%error, kind = std::any::type_name::<K>(), "watch failed, trying again"),
            }
        }
    }

    fn take(&self, event: watcher::Event<Item<K>>, listing: &mut Option<BTreeSet<Key>>) {
        match event {
            watcher::Event::Init => *listing = Some(BTreeSet::new()),
            watcher::Event::InitApply(item) => {
                let key = self.apply_item(item);
                listing.get_or_insert_default().insert(key);
            }
            watcher::Event::InitDone => {
                let seen = listing.take().unwrap_or_default();
                let gone: Vec<Key> =
                    self.cache.state.read().objects.keys().filter(|k| !seen.contains(*k)).cloned().collect();
                gone.iter().for_each(|key| self.delete(key, None));
                self.synced.send_replace(true);
            }
            watcher::Event::Apply(item) => {
                self.apply_item(item);
            }
            watcher::Event::Delete(item) => self.delete(&Key::of(&item), item.read().ok()),
        }
    }

    /// What can't be read stays in the cache as it last could be: it is there, and nothing newer is known of it.
    fn apply_item(&self, item: Item<K>) -> Key {
        match item.read() {
            Ok(object) => self.apply(object),
            Err(unreadable) => {
                unreadable.tell(std::any::type_name::<K>());
                Key::new(unreadable.meta.namespace.unwrap_or_default(), unreadable.meta.name.unwrap_or_default())
            }
        }
    }

    fn apply(&self, mut object: K) -> Key {
        (self.trim)(&mut object);
        let key = Key::of(&object);
        let new = Arc::new(object);
        let delta = match self.cache.put(key.clone(), new.clone()) {
            // A relist repeats what is known.
            Some(old) if old.resource_version() == new.resource_version() => return key,
            Some(old) => Delta::Updated { old, new },
            None => Delta::Added(new),
        };
        self.tell(&delta);
        key
    }

    fn delete(&self, key: &Key, last: Option<K>) {
        let Some(known) = self.cache.remove(key) else { return };
        let delta = Delta::Deleted(last.map_or(known, Arc::new));
        self.tell(&delta);
    }

    fn tell(&self, delta: &Delta<K>) {
        self.handlers.iter().for_each(|h| h(delta));
        let seen = delta.object().meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        self.version.send_if_modified(|newest| {
            *newest = seen.max(*newest);
            true
        });
    }
}

fn drop_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(name: &str, version: &str, label: &str) -> ConfigMap {
        let mut m = ConfigMap::default();
        m.metadata.namespace = Some("ns".into());
        m.metadata.name = Some(name.into());
        m.metadata.resource_version = Some(version.into());
        m.metadata.labels = Some([("l".to_owned(), label.to_owned())].into());
        m
    }

    fn read(name: &str, version: &str, label: &str) -> Item<ConfigMap> {
        Item::Read(map(name, version, label))
    }

    fn informer() -> (Informer<ConfigMap>, std::sync::mpsc::Receiver<String>) {
        let (tx, rx) = std::sync::mpsc::channel();
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("unused"))
        });
        let api = Api::namespaced(crate::in_process(service), "ns");
        let mut informer = Informer::<ConfigMap>::new(api).on(move |delta| {
            let what = match delta {
                Delta::Added(_) => "added",
                Delta::Updated { .. } => "updated",
                Delta::Deleted(_) => "deleted",
            };
            let _ = tx.send(format!("{what} {}", Key::of(delta.object().as_ref())));
        });
        let index: IndexFn<ConfigMap> = Box::new(|m| m.labels().values().cloned().collect());
        informer.cache.index_fns = Arc::new(HashMap::from([("label", index)]));
        (informer, rx)
    }

    #[tokio::test]
    async fn a_relist_tells_only_the_differences() {
        let (informer, told) = informer();
        let mut listing = None;
        let events = vec![
            watcher::Event::Init,
            watcher::Event::InitApply(read("a", "1", "x")),
            watcher::Event::InitApply(read("b", "2", "x")),
            watcher::Event::InitDone,
            watcher::Event::Init,
            watcher::Event::InitApply(read("b", "2", "x")),
            watcher::Event::InitApply(read("c", "3", "y")),
            watcher::Event::InitDone,
            watcher::Event::Apply(read("c", "4", "x")),
        ];
        events.into_iter().for_each(|e| informer.take(e, &mut listing));
        let told: Vec<String> = told.try_iter().collect();
        assert_eq!(told, ["added ns/a", "added ns/b", "added ns/c", "deleted ns/a", "updated ns/c"]);
        assert!(informer.cache.is_synced());
        assert_eq!(informer.cache.by("label", "x").len(), 2);
        assert!(informer.cache.by("label", "y").is_empty(), "an index forgets what an object no longer says");
    }

    #[tokio::test]
    async fn one_object_that_can_not_be_read_keeps_no_other_away() {
        let (informer, told) = informer();
        let mut listing = None;
        let broken = |name: &str| -> Item<ConfigMap> {
            let text = format!(r#"{{"metadata":{{"name":"{name}","namespace":"ns","resourceVersion":"9"}},"data":5}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let events = vec![
            watcher::Event::Init,
            watcher::Event::InitApply(broken("never")),
            watcher::Event::InitApply(read("a", "1", "x")),
            watcher::Event::InitApply(read("b", "1", "x")),
            watcher::Event::InitDone,
            watcher::Event::Apply(broken("a")),
            watcher::Event::Init,
            watcher::Event::InitApply(broken("a")),
            watcher::Event::InitDone,
        ];
        events.into_iter().for_each(|e| informer.take(e, &mut listing));
        let told: Vec<String> = told.try_iter().collect();
        assert_eq!(told, ["added ns/a", "added ns/b", "deleted ns/b"]);
        assert!(informer.cache.is_synced());
        let kept = informer.cache.get_in("ns", "a").unwrap();
        assert_eq!(kept.resource_version().as_deref(), Some("1"), "as it last could be read");
        informer.take(watcher::Event::Delete(broken("a")), &mut listing);
        assert!(informer.cache.is_empty());
    }
}
