//! List and watch one resource into a shared cache, and tell handlers what changed. Every component that reacts to
//! the API starts one informer per resource and reads the cache from its decisions. I/O: asks the API server.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{Stream, StreamExt};
use http::Request;
use kube::client::Body;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, IndexFn, Key};
use crate::held::{self, Held};
use crate::item::{self, Item};
use crate::kept::{self, Kept};
use crate::outage::Outage;
use crate::shared;
use crate::stored::Stored;

/// A watch that was taken and has not failed for this long works.
const SETTLED: Duration = Duration::from_secs(5);

/// One change of the cache. What a handler may rely on:
///
/// - **The cache first.** A handler that reads the cache sees this change in it, and none that is told later about the
///   same resource. Caches of other resources are ahead or behind: nothing orders two informers.
/// - **Order.** The changes of one object come in the order of its resource versions, each to all handlers before the
///   next. Changes of different objects come in the server's order too, save in a list.
/// - **One life.** `old` and `new` of an update have one UID. An object that was deleted and made again under its name is
///   told as `Deleted`, then `Added`, also when the watch was cut meanwhile and only a list shows it. So state that is
///   kept by UID can't leak, and state that is kept by [`Key`] sees the end of the old life.
/// - **Steps may be missing.** An update goes from what the cache held to what it holds now. What happened in between,
///   while the watch was cut or the object could not be read, is told by nobody: an object that came and went is never
///   told, a flag that rose and fell neither. Decide on what is (level), not on how it came about (edge).
/// - **Lists.** After a cut that the server can't bridge everything is listed again. Only differences are told: what is
///   as it was is passed over, what is missing is `Deleted`, after all of the list is in the cache.
///
/// ```text
///   server      a1(uid 1)      deleted, made again: a7(uid 2)
///   watch       a1  ----X  cut   - - - - - - - - -  X  list: a7
///   told        Added(a1)                              Deleted(a1)  Added(a7)
/// ```
#[derive(Debug, Clone)]
pub enum Delta<K> {
    /// An object that the cache did not hold, or not in this life.
    Added(Arc<K>),
    /// An object in another version; of the same UID.
    Updated {
        /// As the cache held it until now, which need not be the version before `new`.
        old: Arc<K>,
        /// As the cache holds it.
        new: Arc<K>,
    },
    /// An object that is gone, as it last was; when only a list showed that, as the cache last held it.
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

type Handler<K> = Box<dyn Fn(&Delta<K>) + Send>;

/// What an informer can watch.
pub trait Watched: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static> Watched for K {}

/// An informer being configured; [`Informer::run`] starts it. What its handlers may rely on is said at [`Delta`].
///
/// Whatever fails is tried again, with a wait that grows to half a minute; told once when it goes on failing, and once
/// when it works again. An object that can't be decoded is passed over and told; it keeps none of the others away.
pub struct Informer<K> {
    api: Api<K>,
    config: watcher::Config,
    handlers: Vec<Handler<K>>,
    indexes: HashMap<&'static str, IndexFn<K>>,
    cache: Cache<K>,
    synced: watch::Sender<bool>,
    version: watch::Sender<u64>,
    /// What an API server in this process has of all this.
    stored: Arc<OnceLock<Stored>>,
    /// Where what it knows is written down, if it is.
    kept: Option<Kept<K>>,
}

impl<K: Watched + Serialize> Informer<K> {
    /// Keeps what it knows in a file of this directory. When no list comes for a while after a start, it begins with that:
    /// handlers are told of it as of a list, and of the differences when one comes. Not for who does what can't be undone.
    pub fn keep_in(mut self, dir: Option<&Path>) -> Self {
        self.kept = dir.map(Kept::new);
        self
    }
}

impl<K: Watched> Informer<K> {
    /// An informer of all that `api` shows: of one namespace, or of all.
    pub fn new(api: Api<K>) -> Informer<K> {
        let (cache, synced, version) = Cache::new();
        Informer {
            api,
            config: watcher::Config::default(),
            handlers: Vec::new(),
            indexes: HashMap::new(),
            cache,
            synced,
            version,
            stored: Arc::default(),
            kept: None,
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

    /// Calls `handler` for each change, in order, in the informer's task: it must not block.
    pub fn on(mut self, handler: impl Fn(&Delta<K>) + Send + 'static) -> Self {
        self.handlers.push(Box::new(handler));
        self
    }

    /// The cache, before anything fills it: for handlers that read the caches of several informers. Indexes must be
    /// added before.
    pub fn cache(&mut self) -> Cache<K> {
        if !self.indexes.is_empty() {
            self.cache.indexed(std::mem::take(&mut self.indexes));
        }
        self.cache.clone()
    }

    /// Starts listing and watching; ends with `shutdown`.
    pub fn run(mut self, shutdown: CancellationToken) -> (Cache<K>, JoinHandle<()>) {
        let cache = self.cache();
        let task = tokio::spawn(self.follow(shutdown));
        (cache, task)
    }

    async fn follow(self, shutdown: CancellationToken) {
        let answered = Arc::new(AtomicBool::new(false));
        let stream = watcher(self.noted_api(&answered), self.config.clone()).default_backoff();
        futures::pin_mut!(stream);
        let (mut listing, mut outage) = (None, Outage::default());
        // When to begin with what was written down, and when to write it down.
        let mut recall = self.kept.as_ref().map(|_| Instant::now() + kept::PATIENCE);
        let mut save: Option<Instant> = None;
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => break,
                () = at(recall) => {
                    recall = None;
                    self.recall();
                    continue;
                }
                () = at(save) => {
                    save = None;
                    self.save().await;
                    continue;
                }
                event = next(&mut stream, &mut outage, &answered, kind::<K>()) => event,
            };
            match event {
                Some(Ok(event)) => {
                    // A list that begins has not been answered yet.
                    if !matches!(event, watcher::Event::Init) {
                        tell_over(&mut outage, kind::<K>());
                    }
                    if matches!(event, watcher::Event::InitDone) {
                        recall = None;
                    }
                    self.take(event, &mut listing);
                    if self.kept.is_some() && listing.is_none() {
                        save.get_or_insert_with(|| Instant::now() + kept::SAVE_AFTER);
                    }
                }
                Some(Err(error)) => tell_failure(&mut outage, &error, kind::<K>()),
                None => break,
            }
        }
        if save.is_some() {
            self.save().await;
        }
    }

    /// Begins with what was written down. What has come of a list meanwhile is newer.
    fn recall(&self) {
        let Some(items) = self.kept.as_ref().and_then(Kept::read) else { return };
        tracing::warn!(kind = kind::<K>(), objects = items.len(), "no API server answers: going on with what is known");
        for item in items.iter().filter(|item| self.cache.held(&Key::of_meta(item.meta())).is_none()) {
            self.apply(item);
        }
        self.synced.send_replace(true);
    }

    fn save(&self) -> impl Future<Output = ()> + Send + use<K> {
        // Nothing of the informer itself waits: its handlers may not be shared between threads.
        let kept = self.kept.clone();
        let cache = self.cache.clone();
        async move {
            if let Some(kept) = kept {
                kept.save(&cache).await;
            }
        }
    }

    /// The watched part of the API, with a note of each answer that is none of refusal, and of what the server stores.
    fn noted_api(&self, answered: &Arc<AtomicBool>) -> Api<Item<K>> {
        let (client, answered, stored) = (self.api.clone().into_client(), answered.clone(), self.stored.clone());
        let namespace = client.default_namespace().to_owned();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, answered, stored) = (client.clone(), answered.clone(), stored.clone());
            async move {
                let answer = client.send(request).await?;
                answered.fetch_or(answer.status().is_success(), Ordering::Relaxed);
                if let Some(known) = answer.extensions().get::<Stored>() {
                    stored.get_or_init(|| known.clone());
                }
                Ok::<_, kube::Error>(answer)
            }
        });
        item::api(&self.api, kube::Client::new(service, namespace))
    }

    fn take(&self, event: watcher::Event<Item<K>>, listing: &mut Option<BTreeSet<Key>>) {
        match event {
            watcher::Event::Init => *listing = Some(BTreeSet::new()),
            watcher::Event::InitApply(item) => {
                let key = self.apply(&item);
                listing.get_or_insert_default().insert(key);
            }
            watcher::Event::InitDone => {
                let seen = listing.take().unwrap_or_default();
                let gone = self.cache.keys().into_iter().filter(|key| !seen.contains(key));
                gone.for_each(|key| self.delete(&key, None));
                self.synced.send_replace(true);
            }
            watcher::Event::Apply(item) => {
                self.apply(&item);
            }
            watcher::Event::Delete(item) => self.delete(&Key::of_meta(item.meta()), Some(&item)),
        }
    }

    /// What can't be read stays in the cache as it last could be: it is there, and nothing newer is known of it. Unless it
    /// is another life of its name: then the one in the cache is gone.
    fn apply(&self, item: &Item<K>) -> Key {
        let key = Key::of_meta(item.meta());
        let mut known = self.cache.held(&key);
        if known.as_ref().is_some_and(|known| is_another_life(known, item)) {
            self.delete(&key, None);
            known = None;
        }
        if known.as_ref().is_some_and(|known| known.version.as_deref() == item.meta().resource_version.as_deref()) {
            // A relist repeats what is known.
            return key;
        }
        match shared::one(item, self.stored.get()) {
            Ok(held) => self.put(&key, held, known),
            Err(unreadable) => unreadable.tell(&kind::<K>()),
        }
        key
    }

    fn put(&self, key: &Key, held: Arc<Held<K>>, known: Option<Arc<Held<K>>>) {
        let (old, new) = (known.map(|known| known.view()), held.view());
        self.cache.put(key, held, old.as_deref(), &new);
        self.tell(&match old {
            Some(old) => Delta::Updated { old, new },
            None => Delta::Added(new),
        });
    }

    fn delete(&self, key: &Key, last: Option<&Item<K>>) {
        let Some(known) = self.cache.held(key) else { return };
        let old = known.view();
        self.cache.remove(key, &old);
        let last = last.filter(|last| !is_another_life(&known, last)).and_then(|last| {
            let version = last.meta().resource_version.as_deref();
            Some(Arc::new(held::trimmed(last.read().ok()?, version)))
        });
        drop(known);
        self.tell(&Delta::Deleted(last.unwrap_or(old)));
        shared::released();
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

/// Waits until then; for ever when there is nothing to wait for.
async fn at(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// Whether two objects of one name are not the same one. What says no UID is nobody's other life.
fn is_another_life<K: Watched>(known: &Held<K>, now: &Item<K>) -> bool {
    known.uid.is_some() && now.meta().uid.is_some() && known.uid.as_deref() != now.meta().uid.as_deref()
}

/// The kind's name for the log.
fn kind<K: Resource<DynamicType = ()>>() -> String {
    K::kind(&()).into_owned()
}

/// The next event. While an outage is told, also looks whether it is over: on a quiet resource no event would show it.
async fn next<T>(
    stream: &mut (impl Stream<Item = T> + Unpin),
    outage: &mut Outage,
    answered: &AtomicBool,
    kind: String,
) -> Option<T> {
    answered.store(false, Ordering::Relaxed);
    while outage.is_told() {
        match tokio::time::timeout(SETTLED, stream.next()).await {
            Ok(event) => return event,
            Err(_) if answered.load(Ordering::Relaxed) => tell_over(outage, kind.clone()),
            Err(_) => {}
        }
    }
    stream.next().await
}

fn tell_failure(outage: &mut Outage, error: &watcher::Error, kind: String) {
    // History that is compacted is listed again: everyday for who was away for a while.
    let expired = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
    if !expired && outage.failed(Instant::now().into_std()) {
        tracing::warn!(%error, kind, "list and watch fail; trying again until they work");
    } else {
        tracing::debug!(%error, kind, "list or watch failed, trying again");
    }
}

fn tell_over(outage: &mut Outage, kind: String) {
    if let Some(lasted) = outage.over(Instant::now().into_std()) {
        tracing::info!(kind, ?lasted, "list and watch work again");
    }
}

#[cfg(test)]
mod tests;
