//! The watch cache of one resource: its objects in key order, the recent events, and who watches them.
//!
//! ```text
//!  store ── one watch over all ──> hub ── events of this resource, in revision order ──> Cache::apply
//!                                                                                             │
//!        map: key ──> Arc<Entry> (stored bytes, labels, fields)   <───────────────────────────┤
//!        indexes: field value ──> entries                         <───────────────────────────┤
//!        window: the newest events ────────────────────────────── <───────────────────────────┤
//!        watchers, by scope: each a bounded queue                 <───────────────────────────┘
//!
//!  GET, LIST ──> snapshot(): the map as it is, O(1), kept by the reader as long as it likes
//!  LIST at r ──> snapshot_at(r): the map, with the events after r undone
//!  WATCH     ──> the window's events after r, then the queue; a frame is encoded once and shared
//! ```
//!
//! Fed by [`hub`] in store revision order. Readers take a persistent snapshot (O(1)) and never block the feed for
//! long; an older state within the event window is the newest one with the later events undone. Watchers get shared
//! events whose encoded frames are made once per format.
//! I/O: waits on tokio's channels and clock.

pub mod corrupt;
pub mod entry;
pub mod hub;
mod index;
pub mod scan;
mod text;
mod watch;
pub(crate) mod window;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tokio::sync::watch as progress;

pub use corrupt::Corrupt;
pub use entry::{Entry, FieldSpec, HeaderSpec};
pub use watch::{Scope, Watcher};

use crate::storage::encryption::ENCRYPTED;
use crate::storage::{KeyValue, StoreEvent, keys};
use corrupt::CorruptSet;
use index::FieldIndex;
use window::Window;

/// What reading a stored value gave.
type Reading = Result<Arc<Entry>, Corrupt>;

/// Own writes whose events have not come yet, per resource. Beyond this they are read again, as others' are.
const MAX_EXPECTED: usize = 4_096;

/// What happened to an object, before any selector is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// Which encoding of an event a frame is: the word, whether it shows the state before, and the encoder's own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameKey {
    pub event: EventType,
    pub previous: bool,
    pub format: u64,
}

/// One change of one object. `entry` is the new state; for `Deleted`, the last state at the revision of the deletion.
#[derive(Debug)]
pub struct Event {
    pub event: EventType,
    pub entry: Arc<Entry>,
    pub previous: Option<Arc<Entry>>,
    /// Number of the event within its cache; two objects written by one transaction share a revision, not this.
    sequence: u64,
    /// None: it is so old that no second watcher is likely to ask for the same.
    frames: Mutex<Option<Frames>>,
}

/// Encodings of an event: most have one.
type Frames = SmallVec<[(FrameKey, Bytes); 1]>;

impl Event {
    fn new(event: EventType, entry: Arc<Entry>, previous: Option<Arc<Entry>>, sequence: u64) -> Event {
        Event { event, entry, previous, sequence, frames: Mutex::new(Some(Frames::new())) }
    }

    pub fn revision(&self) -> i64 {
        self.entry.revision
    }

    /// The frame under `key`, if somebody needed it already.
    pub fn framed(&self, key: FrameKey) -> Option<Bytes> {
        let frames = self.frames.lock();
        frames.iter().flatten().find(|(known, _)| *known == key).map(|(_, frame)| frame.clone())
    }

    /// The frame under `key`, encoded by the first watcher that needs it and shared with all others while it is new.
    pub fn frame(&self, key: FrameKey, encode: impl FnOnce() -> Bytes) -> Bytes {
        let mut frames = self.frames.lock();
        let Some(frames) = frames.as_mut() else { return encode() };
        if let Some((_, frame)) = frames.iter().find(|(k, _)| *k == key) {
            return frame.clone();
        }
        let frame = encode();
        frames.push((key, frame.clone()));
        frame
    }

    fn drop_frames(&self) {
        self.frames.lock().take();
    }
}

/// A consistent view of one resource.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    map: OrdMap<Bytes, Arc<Entry>>,
    /// The view holds every event up to this revision and none after.
    pub revision: i64,
}

impl Snapshot {
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.map.get(key)
    }

    /// Entries whose key starts with `prefix` and is at least `start` (empty: from the beginning), in key order.
    pub fn range<'a>(&'a self, prefix: &Bytes, start: &Bytes) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let from = if start > prefix { start.clone() } else { prefix.clone() };
        let end = keys::prefix_end(prefix);
        let to = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        self.map.range((Bound::Included(from), to)).map(|(_, entry)| entry)
    }

    /// What became of each object that is not as it was in an older view: before, and now. Parts that both views share
    /// are passed over, so that few changes of many objects cost little.
    pub fn changes<'a>(
        &'a self,
        since: &'a Snapshot,
    ) -> impl Iterator<Item = (Option<&'a Arc<Entry>>, Option<&'a Arc<Entry>>)> {
        since.map.diff(&self.map).map(|change| match change {
            DiffItem::Add(_, now) => (None, Some(now)),
            DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
            DiffItem::Remove(_, before) => (Some(before), None),
        })
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

/// Why a read at a revision or a watch from a revision is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowError {
    /// Older than the event window, which begins after `oldest`.
    TooOld { oldest: i64 },
    /// Newer than anything seen.
    TooNew { current: i64 },
}

struct State {
    map: OrdMap<Bytes, Arc<Entry>>,
    /// The same entries by their indexed fields.
    indexes: Vec<FieldIndex>,
    /// What lies among them in the store and can't be read.
    corrupt: CorruptSet,
    window: Window,
    /// Revision of the load: what it brought comes no second time.
    loaded: i64,
    /// Revision of the last event applied, or of the load.
    last: i64,
    /// Events ever applied.
    applied: u64,
    /// The resource is no longer served.
    closed: bool,
}

/// Reads stored bytes: what is wrong with them when they are no object of the resource, or else the form that is served
/// when they are not in it yet (the current storage version, defaults of custom resources filled in).
pub type Reader = Arc<dyn Fn(&Bytes) -> Result<Option<Bytes>, String> + Send + Sync>;

/// Reads values that are JSON and nothing more.
pub fn plain_reader() -> Reader {
    Arc::new(|stored| codec::json::decode(stored, codec::Form::Any).map(|_| None).map_err(|error| error.to_string()))
}

/// See the module's head.
pub struct Cache {
    /// Store prefix of the resource, `/registry/pods/`.
    pub prefix: Bytes,
    header: HeaderSpec,
    reader: Reader,
    state: RwLock<State>,
    /// What this server has written and the feed has not brought yet: known to be readable.
    expected: Mutex<HashMap<Bytes, Arc<Entry>>>,
    /// Stored objects that could not be read since the start, whoever asked.
    decode_errors: AtomicU64,
    watchers: Mutex<watch::Watchers>,
    /// Revision up to which the feed has handed out events, all resources together.
    processed: progress::Receiver<i64>,
}

impl Cache {
    pub(crate) fn new(prefix: Bytes, header: HeaderSpec, reader: Reader, processed: progress::Receiver<i64>) -> Cache {
        let state = State {
            map: OrdMap::new(),
            indexes: FieldIndex::of(&header),
            corrupt: CorruptSet::default(),
            window: Window::new(i64::MAX, 1),
            loaded: 0,
            last: 0,
            applied: 0,
            closed: false,
        };
        Cache {
            prefix,
            header,
            reader,
            state: RwLock::new(state),
            expected: Mutex::default(),
            decode_errors: AtomicU64::new(0),
            watchers: Mutex::default(),
            processed,
        }
    }

    /// The newest view.
    pub fn snapshot(&self) -> Snapshot {
        // Read before the lock: everything up to here has been applied by then.
        let processed = *self.processed.borrow();
        let state = self.state.read();
        Snapshot { map: state.map.clone(), revision: processed.max(state.last) }
    }

    /// The view as of `revision` exactly, if the window reaches back that far.
    pub fn snapshot_at(&self, revision: i64) -> Result<Snapshot, WindowError> {
        let processed = *self.processed.borrow();
        let state = self.state.read();
        let later = state.window.since(revision).ok_or(WindowError::TooOld { oldest: state.window.floor() })?;
        if revision > processed.max(state.last) {
            return Err(WindowError::TooNew { current: processed.max(state.last) });
        }
        let mut map = state.map.clone();
        for event in later.rev() {
            match &event.previous {
                Some(previous) => map.insert(event.entry.key.clone(), previous.clone()),
                None => map.remove(&event.entry.key),
            };
        }
        Ok(Snapshot { map, revision })
    }

    /// One object, newest state.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.state.read().map.get(key).cloned()
    }

    /// One object by namespace (empty for cluster scope) and name, newest state.
    pub fn lookup(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.get(&self.key(namespace, name))
    }

    /// Entries whose indexed field, at this dotted path, has a value; none when the kind does not index it.
    pub fn with_field(&self, path: &str, value: &str) -> Vec<Arc<Entry>> {
        let Some(field) = self.header.field(path) else { return Vec::new() };
        let state = self.state.read();
        let index = state.indexes.iter().find(|index| index.field() == field);
        index.into_iter().flat_map(|index| index.get(value)).cloned().collect()
    }

    /// Like [`Cache::with_field`] by the field's place, with the revision up to which the answer is complete; `None`
    /// when the kind does not index it.
    pub fn indexed(&self, field: usize, value: &str) -> Option<(Vec<Arc<Entry>>, i64)> {
        // Read before the lock: everything up to here has been applied by then.
        let processed = *self.processed.borrow();
        let state = self.state.read();
        let index = state.indexes.iter().find(|index| index.field() == field)?;
        Some((index.get(value).cloned().collect(), processed.max(state.last)))
    }

    /// Store key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> Bytes {
        let mut key = Vec::with_capacity(self.prefix.len() + namespace.len() + name.len() + 1);
        key.extend_from_slice(&self.prefix);
        if !namespace.is_empty() {
            key.extend_from_slice(namespace.as_bytes());
            key.push(b'/');
        }
        key.extend_from_slice(name.as_bytes());
        Bytes::from(key)
    }

    /// Store prefix of a namespace's objects; the whole resource for an empty namespace.
    pub fn namespace_prefix(&self, namespace: &str) -> Bytes {
        if namespace.is_empty() { self.prefix.clone() } else { self.key(namespace, "") }
    }

    pub fn len(&self) -> usize {
        self.state.read().map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Revision of the last event of this resource (or of its load): changes exactly when its content does.
    pub fn last_change(&self) -> i64 {
        self.state.read().last
    }

    /// Revision up to which this cache is known to be complete.
    pub fn revision(&self) -> i64 {
        let processed = *self.processed.borrow();
        processed.max(self.state.read().last)
    }

    /// What this cache extracts from its objects.
    pub fn header(&self) -> &HeaderSpec {
        &self.header
    }

    /// Registers a watcher for events after `revision`. Those of the window come first.
    pub fn watch(self: &Arc<Self>, revision: i64, scope: Scope) -> Result<Watcher, WindowError> {
        let mut watchers = self.watchers.lock();
        let state = self.state.read();
        let backlog = state.since(revision)?;
        let backlog = backlog.filter(|event| scope.covers(event)).cloned().collect();
        let start = watch::Start { backlog, after: revision, sequence: state.window.next() - 1 };
        Ok(watchers.register(self.clone(), start, scope))
    }

    /// Continues a watch whose queue overflowed, after the event with this sequence.
    fn watch_after(self: &Arc<Self>, sequence: u64, after: i64, scope: Scope) -> Option<Watcher> {
        let mut watchers = self.watchers.lock();
        let state = self.state.read();
        let missed = state.window.after(sequence).filter(|_| !state.closed)?;
        let backlog = missed.filter(|event| scope.covers(event)).cloned().collect();
        let start = watch::Start { backlog, after, sequence: state.window.next() - 1 };
        Some(watchers.register(self.clone(), start, scope))
    }

    /// A snapshot and a watcher that continues exactly where it ends.
    pub fn snapshot_and_watch(self: &Arc<Self>, scope: Scope) -> (Snapshot, Watcher) {
        let mut watchers = self.watchers.lock();
        let snapshot = self.snapshot();
        let sequence = self.state.read().window.next() - 1;
        let start = watch::Start { backlog: VecDeque::new(), after: 0, sequence };
        let watcher = watchers.register(self.clone(), start, scope);
        (snapshot, watcher)
    }

    /// Events that came from the store since the start.
    pub fn events(&self) -> u64 {
        self.state.read().applied
    }

    /// Stored objects that could not be read since the start; one counts each time it is read.
    pub fn decode_errors(&self) -> u64 {
        self.decode_errors.load(Ordering::Relaxed)
    }

    /// `[namespace/]name` of what is stored below a prefix and can't be read.
    pub fn corrupt_below(&self, prefix: &Bytes) -> Vec<String> {
        let state = self.state.read();
        let tails = state.corrupt.below(prefix).map(|key| &key[self.prefix.len()..]);
        tails.map(|tail| String::from_utf8_lossy(tail).into_owned()).collect()
    }

    /// Number of registered watchers.
    pub fn watcher_count(&self) -> usize {
        self.watchers.lock().len()
    }

    /// Replaces the whole content (start, or the feed lost its place). Watchers are cut: they come back and relist.
    pub(crate) fn load(&self, kvs: Vec<KeyValue>, revision: i64) {
        let mut watchers = self.watchers.lock();
        self.expected.lock().clear();
        let (mut map, mut corrupt) = (OrdMap::new(), Vec::new());
        let mut indexes = FieldIndex::of(&self.header);
        for outcome in kvs.into_iter().map(|kv| self.entry(kv)) {
            match outcome.map(Arc::new) {
                Ok(entry) => {
                    indexes.iter_mut().for_each(|index| index.insert(&entry));
                    map.insert(entry.key.clone(), entry);
                }
                Err(unreadable) => corrupt.push(unreadable),
            }
        }
        let mut state = self.state.write();
        let mut known = std::mem::take(&mut state.corrupt);
        known.load(corrupt);
        // A gap in the sequence: nobody continues over a load.
        let next = state.window.next() + 2;
        *state = State {
            map,
            indexes,
            corrupt: known,
            window: Window::new(revision, next),
            loaded: revision,
            last: revision,
            applied: state.applied,
            closed: false,
        };
        watchers.clear();
    }

    /// Cuts every watcher: the resource is no longer served.
    pub(crate) fn close(&self) {
        let mut watchers = self.watchers.lock();
        self.state.write().closed = true;
        watchers.clear();
    }

    /// Makes the cache's form of a stored object, whoever wrote it.
    pub fn entry(&self, mut kv: KeyValue) -> Result<Entry, Corrupt> {
        let (key, revision) = (kv.key.clone(), kv.mod_revision);
        let read = match kv.value.starts_with(ENCRYPTED) {
            true => Err("it is encrypted, and no key of the configuration opens it".to_owned()),
            false => (self.reader)(&kv.value),
        };
        let entry = read.and_then(|served| {
            let stale = served.is_some();
            kv.value = served.unwrap_or(kv.value);
            let mut entry = Entry::new(kv, self.prefix.len(), &self.header).ok_or("it has no metadata")?;
            entry.stale = stale;
            Ok(entry)
        });
        entry.map_err(|why| {
            self.decode_errors.fetch_add(1, Ordering::Relaxed);
            Corrupt::new(key, revision, &why)
        })
    }

    /// What is wrong with bytes that are about to be written.
    pub fn check(&self, value: &Bytes) -> Result<(), String> {
        (self.reader)(value).map(drop)
    }

    /// The same of what this server has just written, which went through every check: its bytes are not decoded again,
    /// neither here nor when the feed brings them.
    pub fn written(&self, kv: KeyValue) -> Reading {
        debug_assert_eq!((self.reader)(&kv.value).err(), None, "{}", String::from_utf8_lossy(&kv.key));
        let (key, revision) = (kv.key.clone(), kv.mod_revision);
        let entry = Entry::new(kv, self.prefix.len(), &self.header);
        let entry = Arc::new(entry.ok_or_else(|| Corrupt::new(key, revision, "it has no metadata"))?);
        let mut expected = self.expected.lock();
        let last = self.state.read().last;
        if expected.len() >= MAX_EXPECTED {
            // Those that came in the moment between the two locks.
            expected.retain(|_, entry| entry.revision > last);
        }
        if last < revision && expected.len() < MAX_EXPECTED {
            expected.insert(entry.key.clone(), entry.clone());
        }
        Ok(entry)
    }

    /// The entry of an event.
    fn fed(&self, kv: &KeyValue) -> Reading {
        let own = self.expected.lock().remove(&kv.key).filter(|entry| entry.revision == kv.mod_revision);
        match own {
            // The store knows when the key came into being; the writer only guessed.
            Some(entry) if entry.create_revision == kv.create_revision => Ok(entry),
            Some(entry) => Ok(Arc::new(entry.created_at(kv.create_revision))),
            None => self.entry(kv.clone()).map(Arc::new),
        }
    }

    /// Forgets events that are no longer fresh; when to come again, if ever without a new one.
    pub(crate) fn age(&self, now: Instant) -> Option<Instant> {
        self.state.write().window.age(now)
    }

    /// Applies consecutive events of this resource.
    pub(crate) fn apply(&self, events: Vec<StoreEvent>, now: Instant) {
        let mut watchers = self.watchers.lock();
        let prepared: Vec<(StoreEvent, Option<Reading>)> = events
            .into_iter()
            .map(|event| match &event {
                StoreEvent::Put(kv) => {
                    let entry = self.fed(kv);
                    (event, Some(entry))
                }
                StoreEvent::Delete { .. } => (event, None),
            })
            .collect();
        let mut applied = Vec::with_capacity(prepared.len());
        {
            let mut state = self.state.write();
            for (event, entry) in prepared {
                applied.extend(state.apply(&event, entry, now));
            }
        }
        for event in &applied {
            watchers.dispatch(event);
        }
    }
}

impl State {
    fn since(&self, revision: i64) -> Result<impl Iterator<Item = &Arc<Event>> + use<'_>, WindowError> {
        if self.closed {
            return Err(WindowError::TooOld { oldest: i64::MAX });
        }
        self.window.since(revision).ok_or(WindowError::TooOld { oldest: self.window.floor() })
    }

    fn apply(&mut self, event: &StoreEvent, entry: Option<Reading>, now: Instant) -> Option<Arc<Event>> {
        if event.revision() < self.last || event.revision() <= self.loaded {
            return None;
        }
        self.last = event.revision();
        let (kind, entry, previous) = match entry {
            Some(Ok(entry)) => {
                // What could not be read meanwhile was there all the time.
                let unread = self.corrupt.remove(event.key());
                let previous = self.map.insert(entry.key.clone(), entry.clone()).or(unread);
                (if previous.is_some() { EventType::Modified } else { EventType::Added }, entry, previous)
            }
            Some(Err(corrupt)) => {
                let last = self.map.remove(event.key());
                self.indexes.iter_mut().for_each(|index| last.iter().for_each(|last| index.remove(last)));
                self.corrupt.insert(corrupt, last);
                return None;
            }
            None => {
                let unread = self.corrupt.remove(event.key());
                let previous = self.map.remove(event.key()).or(unread)?;
                (EventType::Deleted, Arc::new(previous.at_revision(event.revision())), Some(previous))
            }
        };
        for index in &mut self.indexes {
            if let Some(previous) = &previous {
                index.remove(previous);
            }
            if kind != EventType::Deleted {
                index.insert(&entry);
            }
        }
        let event = Arc::new(Event::new(kind, entry, previous, self.window.next()));
        self.applied += 1;
        self.window.push(event.clone(), now);
        Some(event)
    }
}
