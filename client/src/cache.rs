//! What an informer knows of one resource, for anyone in the component to read: objects by name, and by what index
//! functions say of them. How an object is held is known to `held`; here it is seen as a typed view. Memory behind a
//! lock, no I/O; written by [`crate::informer`] alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::held::Held;
use crate::informer::Watched;

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
    objects: BTreeMap<Key, Arc<Held<K>>>,
    indexes: HashMap<&'static str, BTreeMap<String, BTreeSet<Key>>>,
}

/// A read view of one resource, shared by everyone in the component. Cheap to clone; clones are the same cache.
///
/// Only its informer writes it, and only forward: what it shows is the server's state as it was some time ago, the same
/// for all objects but for what a list that is under way has not brought yet. Objects are shared, never copied: who
/// wants to change one clones what is in the `Arc`. Large ones that were not asked for lately are read from their text
/// when they are: who wants some of many narrows by an index or by labels, and who keeps one keeps all of it.
/// Reads of several objects are not one moment: between two calls the informer may write. No lock is held while a
/// caller looks at what it got.
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

    /// Whether there is any object of a namespace.
    pub fn has_in(&self, namespace: &str) -> bool {
        let state = self.state.read();
        state.objects.range(Key::new(namespace, "")..).next().is_some_and(|(key, _)| key.namespace == namespace)
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

    /// As it is held.
    pub(crate) fn held(&self, key: &Key) -> Option<Arc<Held<K>>> {
        self.state.read().objects.get(key).cloned()
    }

    /// How many objects there are for which the index function `index` gave `value`.
    pub fn count_by(&self, index: &str, value: &str) -> usize {
        let state = self.state.read();
        state.indexes.get(index).and_then(|i| i.get(value)).map_or(0, BTreeSet::len)
    }

    fn held_by(&self, index: &str, value: &str) -> Vec<Arc<Held<K>>> {
        let state = self.state.read();
        let keys = state.indexes.get(index).and_then(|i| i.get(value));
        keys.into_iter().flatten().filter_map(|k| state.objects.get(k).cloned()).collect()
    }

    fn held_in(&self, namespace: &str) -> Vec<Arc<Held<K>>> {
        let from = Key::new(namespace, "");
        let state = self.state.read();
        state.objects.range(from..).take_while(|(k, _)| k.namespace == namespace).map(|(_, v)| v.clone()).collect()
    }
}

impl<K: Watched> Cache<K> {
    /// The object of this name.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.held(key).map(|held| held.view())
    }

    /// The object of this name; the namespace is empty for cluster-scoped kinds.
    pub fn get_in(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&Key::new(namespace, name))
    }

    /// All objects, by key.
    pub fn list(&self) -> Vec<Arc<K>> {
        let held: Vec<_> = self.state.read().objects.values().cloned().collect();
        held.iter().map(Held::view).collect()
    }

    /// All objects of one namespace, by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.held_in(namespace).iter().map(Held::view).collect()
    }

    /// Those objects of one namespace whose labels are as wanted, by name. The others are not read.
    pub fn list_labelled(
        &self,
        namespace: &str,
        wanted: impl Fn(&Option<BTreeMap<String, String>>) -> bool,
    ) -> Vec<Arc<K>> {
        self.held_in(namespace).iter().filter(|held| held.has_labels(&wanted)).map(Held::view).collect()
    }

    /// Objects for which the index function `index` gave `value`, by key; none if there is no such index.
    pub fn by(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        self.held_by(index, value).iter().map(Held::view).collect()
    }

    /// Those of them whose labels are as wanted. The others are not read.
    pub fn by_labelled(
        &self,
        index: &str,
        value: &str,
        wanted: impl Fn(&Option<BTreeMap<String, String>>) -> bool,
    ) -> Vec<Arc<K>> {
        self.held_by(index, value).iter().filter(|held| held.has_labels(&wanted)).map(Held::view).collect()
    }

    /// Puts an object in the place of what was held under this key, both as they are seen.
    pub(crate) fn put(&self, key: &Key, held: Arc<Held<K>>, old: Option<&K>, new: &K) {
        let mut state = self.state.write();
        state.objects.insert(key.clone(), held);
        for (name, keys_of) in self.index_fns.iter() {
            let index = state.indexes.entry(name).or_default();
            for value in old.iter().flat_map(|o| keys_of(o)) {
                unindex(index, &value, key);
            }
            for value in keys_of(new) {
                index.entry(value).or_default().insert(key.clone());
            }
        }
    }

    /// Takes the object of this key out; `old` is what it is seen as.
    pub(crate) fn remove(&self, key: &Key, old: &K) {
        let mut state = self.state.write();
        state.objects.remove(key);
        for (name, keys_of) in self.index_fns.iter() {
            let index = state.indexes.entry(name).or_default();
            for value in keys_of(old) {
                unindex(index, &value, key);
            }
        }
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
