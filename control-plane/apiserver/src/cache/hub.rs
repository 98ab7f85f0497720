//! Feeds every watch cache from one watch of the store. I/O: reads and watches the store.
//!
//! One watch over the whole prefix gives a single order over all resources, and one revision up to which everything
//! has been seen: a consistent read is "ask the store for its revision, wait until the feed is there".

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch as progress};
use tokio_util::sync::CancellationToken;

use super::window::FRESH;
use super::{Cache, HeaderSpec, Reader};
use crate::storage::{KeyValue, RangeRequest, Store, StoreError, StoreEvent, WatchStream, keys};

/// Keys per read while a resource is loaded: bounds one answer of a remote store.
const LOAD_PAGE: usize = 5_000;
/// First and longest pause before the store is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How long a consistent read waits for the feed before it gives up.
const CATCH_UP: Duration = Duration::from_secs(3);
/// How often the store is asked for a progress notification meanwhile.
const PROGRESS_ASK: Duration = Duration::from_millis(100);

enum Command {
    Add(Arc<Cache>, oneshot::Sender<()>),
}

/// Why the store is followed no longer.
#[derive(Debug)]
enum Ended {
    /// Nobody wants it any more.
    Stopped,
    /// To be opened again.
    Failed(StoreError),
}

/// The feed of all caches.
pub struct Hub {
    store: Arc<dyn Store>,
    /// `/registry/`.
    root: Bytes,
    /// By store prefix.
    caches: RwLock<HashMap<Bytes, Arc<Cache>>>,
    processed: progress::Sender<i64>,
    commands: mpsc::UnboundedSender<Command>,
    inbox: parking_lot::Mutex<Option<mpsc::UnboundedReceiver<Command>>>,
}

impl Hub {
    /// A hub without caches; nothing is read before [`Hub::run`].
    pub fn new(store: Arc<dyn Store>, root: Bytes) -> Hub {
        // One command a definition that is made, and whoever makes it waits.
        let (commands, inbox) = mpsc::unbounded_channel();
        Hub {
            store,
            root,
            caches: RwLock::default(),
            processed: progress::Sender::new(0),
            commands,
            inbox: parking_lot::Mutex::new(Some(inbox)),
        }
    }

    /// Registers a cache before the hub runs; it is loaded when the hub starts.
    pub fn declare(&self, prefix: Bytes, header: HeaderSpec, reader: Reader) -> Arc<Cache> {
        let cache = Arc::new(Cache::new(prefix.clone(), header, reader, self.processed.subscribe()));
        self.caches.write().insert(prefix, cache.clone());
        cache
    }

    /// Adds a cache to the running hub; returns when it is loaded and live.
    pub async fn add(&self, prefix: Bytes, header: HeaderSpec, reader: Reader) -> Arc<Cache> {
        let cache = Arc::new(Cache::new(prefix, header, reader, self.processed.subscribe()));
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Add(cache.clone(), done)).is_ok() {
            let _ = wait.await;
        }
        cache
    }

    /// The cache of a store prefix.
    pub fn cache(&self, prefix: &[u8]) -> Option<Arc<Cache>> {
        self.caches.read().get(prefix).cloned()
    }

    /// Stops feeding a cache and cuts its watchers.
    pub fn remove(&self, prefix: &Bytes) {
        if let Some(cache) = self.caches.write().remove(prefix) {
            cache.close();
        }
    }

    /// Revision up to which all caches are complete; 0 before the first load.
    pub fn revision(&self) -> i64 {
        *self.processed.borrow()
    }

    /// Waits until the caches hold everything that was acknowledged before this call; the revision they reached.
    pub async fn catch_up(&self) -> Result<i64, StoreError> {
        let target = self.store.revision().await?;
        self.wait_for(target).await?;
        Ok(target)
    }

    /// Waits until the caches have processed `target`.
    pub async fn wait_for(&self, target: i64) -> Result<(), StoreError> {
        let mut processed = self.processed.subscribe();
        if *processed.borrow_and_update() >= target {
            return Ok(());
        }
        let wait = async {
            // Usually the events are on their way; ask for progress only when they are not.
            loop {
                let there = processed.wait_for(|at| *at >= target);
                let there = tokio::time::timeout(PROGRESS_ASK, there).await.is_ok();
                if there {
                    return Ok(());
                }
                self.store.request_progress().await?;
            }
        };
        match tokio::time::timeout(CATCH_UP, wait).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::FutureRevision { current: self.revision() }),
        }
    }

    /// Loads all caches, then follows the store until shutdown. `ready` fires after the first load.
    pub async fn run(self: Arc<Self>, ready: oneshot::Sender<()>, shutdown: CancellationToken) {
        let Some(mut inbox) = self.inbox.lock().take() else { return };
        let mut ready = Some(ready);
        let mut pause = RETRY_FIRST;
        let mut reload = true;
        while !shutdown.is_cancelled() {
            match self.open(reload).await {
                Ok(watch) => {
                    reload = false;
                    pause = RETRY_FIRST;
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(());
                    }
                    match self.follow(watch, &mut inbox, &shutdown).await {
                        Ended::Stopped => return,
                        Ended::Failed(StoreError::Compacted { .. }) => reload = true,
                        Ended::Failed(error) => tracing::warn!(%error, "the watch of the store ended; reopening"),
                    }
                }
                Err(StoreError::Compacted { .. }) => reload = true,
                Err(error) => tracing::warn!(%error, "the store cannot be watched; trying again"),
            }
            tokio::select! {
                _ = tokio::time::sleep(pause) => {}
                _ = shutdown.cancelled() => break,
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    async fn open(&self, reload: bool) -> Result<WatchStream, StoreError> {
        if reload {
            let revision = self.store.revision().await?;
            let caches: Vec<Arc<Cache>> = self.caches.read().values().cloned().collect();
            for cache in caches {
                let kvs = self.read_all(&cache.prefix, revision).await?;
                cache.load(kvs, revision);
            }
            self.processed.send_replace(revision);
        }
        let from = self.revision() + 1;
        self.store.watch(self.root.clone(), keys::prefix_end(&self.root), from).await
    }

    async fn read_all(&self, prefix: &Bytes, revision: i64) -> Result<Vec<KeyValue>, StoreError> {
        let mut all = Vec::new();
        let mut request = RangeRequest {
            key: prefix.clone(),
            end: keys::prefix_end(prefix),
            revision,
            limit: LOAD_PAGE,
            ..RangeRequest::default()
        };
        loop {
            let page = self.store.range(request.clone()).await?.kvs;
            let Some(last) = page.last().filter(|_| page.len() == LOAD_PAGE) else {
                all.extend(page);
                return Ok(all);
            };
            let mut next = last.key.to_vec();
            next.push(0);
            request.key = Bytes::from(next);
            all.extend(page);
        }
    }

    async fn follow(
        &self,
        mut watch: WatchStream,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
        shutdown: &CancellationToken,
    ) -> Ended {
        // When events of the caches' windows have been there for long enough; none while nothing new came.
        let mut stale: Option<Instant> = None;
        loop {
            tokio::select! {
                () = at(stale) => stale = self.age(Instant::now()),
                batch = watch.next() => match batch {
                    Some(Ok(batch)) => {
                        let now = Instant::now();
                        self.distribute(batch.events, now);
                        stale.get_or_insert(now + FRESH);
                        self.processed.send_if_modified(|at| {
                            let forward = batch.revision > *at;
                            *at = batch.revision.max(*at);
                            forward
                        });
                    }
                    Some(Err(error)) => return Ended::Failed(error),
                    None => return Ended::Failed(StoreError::Unavailable("the watch stream ended".to_owned())),
                },
                command = inbox.recv() => match command {
                    Some(Command::Add(cache, done)) => {
                        let revision = self.revision();
                        match self.read_all(&cache.prefix, revision).await {
                            Ok(kvs) => cache.load(kvs, revision),
                            Err(error) => return Ended::Failed(error),
                        }
                        let before = self.caches.write().insert(cache.prefix.clone(), cache);
                        if let Some(before) = before {
                            before.close();
                        }
                        let _ = done.send(());
                    }
                    None => return Ended::Stopped,
                },
                _ = shutdown.cancelled() => return Ended::Stopped,
            }
        }
    }

    /// Lets every cache forget what is no longer fresh; when the next event will be.
    fn age(&self, now: Instant) -> Option<Instant> {
        self.caches.read().values().filter_map(|cache| cache.age(now)).min()
    }

    /// Hands events to their caches; runs of the same cache go together, so that a transaction is not torn.
    fn distribute(&self, events: Vec<StoreEvent>, now: Instant) {
        let mut run: Option<(Arc<Cache>, Vec<StoreEvent>)> = None;
        for event in events {
            let Some(cache) = self.owner(event.key()) else { continue };
            match &mut run {
                Some((current, pending)) if Arc::ptr_eq(current, &cache) => pending.push(event),
                _ => {
                    if let Some((current, pending)) = run.replace((cache, vec![event])) {
                        current.apply(pending, now);
                    }
                }
            }
        }
        if let Some((cache, pending)) = run {
            cache.apply(pending, now);
        }
    }

    /// The cache of a key: its resource is the first path segment after the root, or the first two.
    fn owner(&self, key: &[u8]) -> Option<Arc<Cache>> {
        let caches = self.caches.read();
        let tail = key.get(self.root.len()..)?;
        let mut slashes = tail.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| self.root.len() + i + 1);
        let first = slashes.next()?;
        caches.get(&key[..first]).or_else(|| caches.get(&key[..slashes.next()?])).cloned()
    }
}

/// Waits until then; for ever when there is nothing to wait for.
async fn at(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStore;

    #[tokio::test]
    async fn a_stop_is_no_failure_of_the_store() {
        let hub = Hub::new(Arc::new(MemoryStore::default()), Bytes::from_static(b"/registry/"));
        let mut inbox = hub.inbox.lock().take().expect("nobody has it");
        let (watch, shutdown) = (hub.open(true).await.expect("a watch"), CancellationToken::new());
        shutdown.cancel();
        let ended = hub.follow(watch, &mut inbox, &shutdown).await;
        assert!(matches!(ended, Ended::Stopped), "{ended:?}");
    }
}
