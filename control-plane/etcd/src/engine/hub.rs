//! I/O: delivers changes to watches. The writer publishes what became durable into each watch's bounded queue; a watch
//! that starts in the past or fell behind reads history first, at its own pace, and loses nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use wire::etcd::KeyValue;

use super::Shared;
use crate::error::Error;
use crate::mvcc::Version;
use crate::recent::Change;
use crate::span::Span;
use crate::watch::Groups;

/// Changes that may wait in a watch's queue; one that lags more reads history instead.
const MAX_QUEUED: usize = 4096;
/// Changes that one step of catching up looks at.
const HISTORY_AT_ONCE: usize = 1000;
/// Bytes of values that one step of catching up loads, unless one revision is larger.
const HISTORY_BYTES: usize = 2 << 20;
/// Keys scanned for history while the store is held once.
const KEYS_AT_ONCE: usize = 1024;

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct WatchOptions {
    pub key: Bytes,
    /// As in a range request.
    pub range_end: Bytes,
    /// First revision wanted; 0 is "from now on".
    pub start_revision: i64,
    /// Load what keys held before.
    pub prev_kv: bool,
    pub no_put: bool,
    pub no_delete: bool,
    /// Take part in `Etcd::request_progress`.
    pub progress: bool,
}

/// What a watch tells.
#[derive(Debug, Clone)]
pub enum WatchMessage {
    /// Changes in revision order, whole revisions; everything up to `revision` has now been told.
    Changes { revision: i64, changes: Vec<Arc<Change>> },
    /// Everything up to `revision` has been told.
    Progress { revision: i64 },
    /// The next revision wanted is compacted away; the watch is over.
    Compacted { compact_revision: i64 },
    /// A value of the history can't be read; the watch is over.
    Failed(Error),
}

/// Wakes whoever reads one or several watches, and says which of them have something.
#[derive(Debug, Default)]
pub struct Signal {
    notify: Notify,
    ready: Mutex<VecDeque<i64>>,
}

impl Signal {
    /// Puts a watch on the ready list.
    pub fn raise(&self, token: i64) {
        self.ready.lock().push_back(token);
        self.notify.notify_one();
    }

    /// Waits until some watch has something.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }

    /// The next watch that has something to tell.
    pub fn pop(&self) -> Option<i64> {
        self.ready.lock().pop_front()
    }
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<(i64, Arc<[Arc<Change>]>)>,
    queued: usize,
    /// First revision that found no place.
    missed: Option<i64>,
    progress: Option<i64>,
    /// Already on the ready list.
    raised: bool,
}

/// A watch as the writer sees it.
#[derive(Debug)]
struct Slot {
    signal: Arc<Signal>,
    token: i64,
    wants_progress: bool,
    queue: Mutex<Queue>,
}

impl Slot {
    fn push(&self, revision: i64, changes: &Arc<[Arc<Change>]>) {
        let mut queue = self.queue.lock();
        if queue.missed.is_some() {
            return;
        }
        if queue.queued + changes.len() > MAX_QUEUED && queue.queued > 0 {
            queue.missed = Some(changes[0].revision());
        } else {
            queue.queued += changes.len();
            queue.batches.push_back((revision, changes.clone()));
        }
        self.raise(&mut queue);
    }

    fn raise(&self, queue: &mut Queue) {
        if !std::mem::replace(&mut queue.raised, true) {
            self.signal.raise(self.token);
        }
    }
}

#[derive(Debug)]
struct HubState {
    published: i64,
    groups: Groups<Arc<Slot>>,
    next_id: u64,
    closed: bool,
}

/// Every watch of the store.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<HubState>,
    /// Watches that want what keys held before.
    wants_previous: AtomicUsize,
}

impl Hub {
    pub fn new(revision: i64) -> Hub {
        let state = HubState { published: revision, groups: Groups::default(), next_id: 1, closed: false };
        Hub { state: Mutex::new(state), wants_previous: AtomicUsize::new(0) }
    }

    /// Number of open watches.
    pub fn len(&self) -> usize {
        self.state.lock().groups.iter().count()
    }

    pub fn published(&self) -> i64 {
        self.state.lock().published
    }

    /// Ends every watch once it has told what it has.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for slot in state.groups.iter() {
            slot.raise(&mut slot.queue.lock());
        }
    }

    pub fn request_progress(&self) {
        let state = self.state.lock();
        for slot in state.groups.iter().filter(|s| s.wants_progress) {
            let mut queue = slot.queue.lock();
            queue.progress = Some(state.published);
            slot.raise(&mut queue);
        }
    }
}

impl Shared {
    /// Hands changes that became durable to the watches that they concern.
    pub fn publish(&self, changes: Vec<Arc<Change>>, durable: i64) {
        if self.hub.wants_previous.load(Ordering::Relaxed) > 0 {
            for change in &changes {
                self.load_previous(change);
            }
        }
        let mut hub = self.hub.state.lock();
        hub.published = durable;
        for (changes, watchers) in hub.groups.route(&changes) {
            for (_, slot) in watchers {
                slot.push(durable, &changes);
            }
        }
    }

    fn load_previous(&self, change: &Change) {
        if change.prev_kv.get().is_some() {
            return;
        }
        let loaded = change.previous.and_then(|version| self.previous(&change.kv.key, &version));
        let _ = change.prev_kv.set(loaded);
    }

    /// A former version with its value; `None` when compaction took it.
    fn previous(&self, key: &Bytes, version: &Version) -> Option<KeyValue> {
        let state = self.state.read();
        // Where it lies now: a checkpoint may have moved it.
        let known = state.store.history(key)?.all().iter().find(|v| v.modified == version.modified)?;
        let value = state.store.value(known, &state.files).ok()?;
        Some(KeyValue { value, ..known.without_value(key.clone()) })
    }
}

/// A change of the past: the key and its version, and what it replaced.
#[derive(Debug)]
struct Past {
    key: Bytes,
    version: Version,
    previous: Option<Version>,
}

/// A watch. Dropping it ends it.
pub struct Watcher {
    shared: Arc<Shared>,
    options: WatchOptions,
    span: Span,
    id: u64,
    slot: Arc<Slot>,
    /// Next revision to tell.
    cursor: i64,
    /// History is to be read up to here before the queue.
    until: i64,
    /// What the index told of that history, when `Recent` does not reach back so far.
    past: Option<VecDeque<Past>>,
    over: bool,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.hub.state.lock().groups.remove(&self.span, self.id);
        if self.options.prev_kv {
            self.shared.hub.wants_previous.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>, options: WatchOptions, signal: Arc<Signal>, token: i64) -> Watcher {
        let span = Span::new(options.key.clone(), options.range_end.clone());
        let wants_progress = options.progress;
        let slot = Arc::new(Slot { signal, token, wants_progress, queue: Mutex::default() });
        if options.prev_kv {
            shared.hub.wants_previous.fetch_add(1, Ordering::Relaxed);
        }
        let (id, published) = {
            let mut hub = shared.hub.state.lock();
            let id = hub.next_id;
            hub.next_id += 1;
            hub.groups.insert(&span, id, slot.clone());
            (id, hub.published)
        };
        let cursor = if options.start_revision <= 0 { published + 1 } else { options.start_revision };
        slot.raise(&mut slot.queue.lock());
        Watcher { shared, options, span, id, slot, cursor, until: published, past: None, over: false }
    }

    /// Waits for the next message; `None` when the store is closed or the watch is over.
    pub async fn next(&mut self) -> Option<WatchMessage> {
        loop {
            if let Some(message) = self.try_next() {
                return Some(message);
            }
            if self.over || self.shared.hub.state.lock().closed {
                return None;
            }
            self.slot.signal.wait().await;
            while self.slot.signal.pop().is_some() {}
        }
    }

    /// The next message if there is one now. Reads values from disk when they are old.
    pub fn try_next(&mut self) -> Option<WatchMessage> {
        loop {
            if self.over {
                return None;
            }
            if self.cursor <= self.until {
                match self.catch_up() {
                    Ok((changes, _)) if changes.is_empty() => continue,
                    Ok((changes, revision)) => return Some(WatchMessage::Changes { revision, changes }),
                    Err(error) => {
                        self.over = true;
                        return Some(match error {
                            Error::Compacted { compact_revision } => WatchMessage::Compacted { compact_revision },
                            other => WatchMessage::Failed(other),
                        });
                    }
                }
            }
            if let Some(message) = self.dequeue()? {
                return Some(message);
            }
        }
    }

    /// Whether everything up to `revision`, which has been published, has been told.
    pub fn has_told(&self, revision: i64) -> bool {
        let queue = self.slot.queue.lock();
        let queued = queue.missed.is_some() || queue.batches.front().is_some_and(|(first, _)| *first <= revision);
        self.cursor > revision || self.over || (self.cursor > self.until && !queued)
    }

    /// Takes from the queue. Outer `None`: it is empty; inner: nothing to tell of what was taken.
    fn dequeue(&mut self) -> Option<Option<WatchMessage>> {
        let mut queue = self.slot.queue.lock();
        if let Some((revision, batch)) = queue.batches.pop_front() {
            queue.queued -= batch.len();
            drop(queue);
            let changes: Vec<_> = batch.iter().filter(|c| self.wants(c)).cloned().collect();
            self.cursor = self.cursor.max(revision + 1);
            let told = (!changes.is_empty()).then_some(WatchMessage::Changes { revision, changes });
            return Some(told);
        }
        if queue.missed.is_some() {
            drop(queue);
            // New changes queue again from here on; what was missed is read from history.
            let hub = self.shared.hub.state.lock();
            let missed = self.slot.queue.lock().missed.take();
            self.cursor = self.cursor.max(missed.unwrap_or(self.cursor));
            self.until = hub.published;
            return Some(None);
        }
        if let Some(revision) = queue.progress.take() {
            return Some(Some(WatchMessage::Progress { revision }));
        }
        queue.raised = false;
        None
    }

    fn wants(&self, change: &Change) -> bool {
        let filtered = if change.deleted { self.options.no_delete } else { self.options.no_put };
        change.revision() >= self.cursor && !filtered
    }

    /// One step through history: changes (perhaps none) and up to which revision they are complete.
    fn catch_up(&mut self) -> Result<(Vec<Arc<Change>>, i64), Error> {
        let (found, reached) = {
            let state = self.shared.state.read();
            let compacted = state.store.compacted();
            if self.cursor < compacted {
                return Err(Error::Compacted { compact_revision: compacted });
            }
            if state.store.recent.covers(self.cursor) {
                self.past = None;
                state.store.recent.slice(&self.span, self.cursor, self.until, HISTORY_AT_ONCE)
            } else {
                drop(state);
                self.read_index()?
            }
        };
        let changes: Vec<_> = found.into_iter().filter(|c| self.wants(c)).collect();
        if self.options.prev_kv {
            changes.iter().for_each(|c| self.shared.load_previous(c));
        }
        self.cursor = reached + 1;
        Ok((changes, reached))
    }

    fn read_index(&mut self) -> Result<(Vec<Arc<Change>>, i64), Error> {
        if self.past.is_none() {
            self.past = Some(self.scan_past()?);
        }
        let past = self.past.as_mut().expect("just made");
        let mut changes = Vec::new();
        let mut bytes = 0;
        let mut reached = self.cursor - 1;
        while let Some(next) = past.front() {
            if (changes.len() >= HISTORY_AT_ONCE || bytes >= HISTORY_BYTES) && next.version.modified > reached {
                return Ok((changes, reached));
            }
            let next = past.pop_front().expect("there is a front");
            reached = next.version.modified;
            bytes += next.version.len as usize;
            changes.push(Arc::new(self.shared.past_change(next)?));
        }
        self.past = None;
        Ok((changes, self.until))
    }

    /// Every change of the span from the cursor on, in revision order. Keys are looked at in steps.
    fn scan_past(&self) -> Result<VecDeque<Past>, Error> {
        let mut found: Vec<Past> = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let state = self.shared.state.read();
            if self.cursor < state.store.compacted() {
                return Err(Error::Compacted { compact_revision: state.store.compacted() });
            }
            let Some(bounds) = self.span.bounds(after.as_deref()) else { break };
            let mut last = None;
            for (key, history) in state.store.keys.range::<[u8], _>(bounds).take(KEYS_AT_ONCE) {
                let versions = history.all();
                let from = versions.partition_point(|v| v.modified < self.cursor);
                for (at, version) in versions.iter().enumerate().skip(from) {
                    if version.modified > self.until {
                        break;
                    }
                    let before = at.checked_sub(1).map(|b| versions[b]).filter(|v| !v.is_tombstone());
                    found.push(Past { key: key.clone(), version: *version, previous: before });
                }
                last = Some(key.clone());
            }
            match last {
                Some(key) if !self.span.is_single() => after = Some(key),
                _ => break,
            }
        }
        found.sort_by_key(|p| (p.version.modified, p.version.sub));
        Ok(found.into())
    }
}

impl Shared {
    fn past_change(&self, past: Past) -> Result<Change, Error> {
        let Past { key, version, previous } = past;
        let deleted = version.is_tombstone();
        let kv = if deleted {
            KeyValue { key, mod_revision: version.modified, ..KeyValue::default() }
        } else {
            let state = self.state.read();
            let compacted = Error::Compacted { compact_revision: state.store.compacted() };
            let history = state.store.history(&key).ok_or_else(|| compacted.clone())?;
            let known = history.all().iter().find(|v| v.modified == version.modified).ok_or(compacted)?;
            let value = state.store.value(known, &state.files)?;
            KeyValue { value, ..known.without_value(key) }
        };
        Ok(Change { kv, deleted, sub: version.sub, previous, prev_kv: OnceLock::new() })
    }
}
