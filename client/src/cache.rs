//! What an informer knows of one resource, for anyone in the component to read: objects by name, and by what index
//! functions say of them. Memory behind a lock, no I/O; written by
//! [`crate::informer`] alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use parking_lot::RwLock;
use tokio::sync::watch;

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds. Prints as upstream's queue key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// As in the object's metadata.
    pub name: String,
}

impl Key {
    /// A key of these names.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    /// The object's key.
    pub fn of<K: Resource>(object: &K) -> Key {
        Key::of_meta(object.meta())
    }

    pub(crate) fn of_meta(meta: &ObjectMeta) -> Key {
        Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

pub(crate) type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: HashMap<&'static str, BTreeMap<String, BTreeSet<Key>>>,
}

/// A read view of one resource, shared by everyone in the component. Cheap to clone; clones are the same cache.
///
/// Only its informer writes it, and only forward: what it shows is the server's state as it was some time ago, the same
/// for all objects but for what a list that is under way has not brought yet. Objects are shared, never copied: who
/// wants to change one clones what is in the `Arc`. Reads of several objects are not one moment: between two calls the
/// informer may write. No lock is held while a caller looks at what it got.
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
    /// Empty, and the ends through which its informer tells that it is synced and how far it is.
    pub(crate) fn new() -> (Cache<K>, watch::Sender<bool>, watch::Sender<u64>) {
        let (synced, seen) = watch::channel(false);
        let (version, newest) = watch::channel(0);
        let state = Arc::new(RwLock::new(State { objects: BTreeMap::new(), indexes: HashMap::new() }));
        (Cache { state, index_fns: Arc::default(), synced: seen, version: newest }, synced, version)
    }

    /// With these indexes; before anything is in it.
    pub(crate) fn indexed(&mut self, indexes: HashMap<&'static str, IndexFn<K>>) {
        self.index_fns = Arc::new(indexes);
    }

    /// The object of this name.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// The object of this name; the namespace is empty for cluster-scoped kinds.
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

    /// Objects for which the index function `index` gave `value`, by key; none if there is no such index.
    pub fn by(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let keys = state.indexes.get(index).and_then(|i| i.get(value));
        keys.into_iter().flatten().filter_map(|k| state.objects.get(k).cloned()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there is none: also before the first list.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list is in the cache.
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

    /// The keys of all objects.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.state.read().objects.keys().cloned().collect()
    }

    pub(crate) fn put(&self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
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

    pub(crate) fn remove(&self, key: &Key) -> Option<Arc<K>> {
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
