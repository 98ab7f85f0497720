//! The multi-version index: every retained version of every key, what it hangs on, and where its value lies.
//! Pure: the writer applies changes here before they are durable, readers name the revision that they may see, and
//! what did not become durable is rolled back. Values of the newest writes are in `Recent`, all others on disk.
//! Callers: `txn` (writes), `query` (reads), `engine` (recovery, checkpoint, compaction).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use wire::etcd::KeyValue;

use crate::error::Error;
use crate::lease::{Lease, Leases};
use crate::recent::{Change, Recent};
use crate::span::Span;

/// Where a value's checksum and bytes lie: a data file's number and the offset in it, packed in 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    const OFFSET_BITS: u32 = 48;

    pub fn new(file: u16, offset: u64) -> Place {
        debug_assert!(offset >> Self::OFFSET_BITS == 0, "files end long before 256 TiB");
        Place((u64::from(file) << Self::OFFSET_BITS) | offset)
    }

    pub fn file(self) -> u16 {
        (self.0 >> Self::OFFSET_BITS) as u16
    }

    pub fn offset(self) -> u64 {
        self.0 & ((1 << Self::OFFSET_BITS) - 1)
    }
}

/// One write of one key. 48 bytes: with the value on disk this is what a key costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub modified: i64,
    /// Order among the changes of one revision.
    pub sub: u32,
    /// Bytes of the value.
    pub len: u32,
    pub created: i64,
    /// Writes since creation; 0 marks a deletion.
    pub version: i64,
    pub lease: i64,
    pub place: Place,
}

impl Version {
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// The key-value pair of this version, with the value still missing.
    pub fn without_value(&self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: self.created,
            mod_revision: self.modified,
            version: self.version,
            value: Bytes::new(),
            lease: self.lease,
        }
    }
}

/// Reads a value that is not in memory.
pub trait Values {
    fn load(&self, place: Place, len: u32) -> Result<Bytes, Error>;
}

/// Versions of one key, oldest first.
#[derive(Debug, Default)]
pub struct History(Vec<Version>);

impl History {
    /// The live version that a read at `revision` sees.
    pub fn at(&self, revision: i64) -> Option<&Version> {
        let newer = self.0.partition_point(|v| v.modified <= revision);
        self.0[..newer].last().filter(|v| !v.is_tombstone())
    }

    pub fn newest(&self) -> Option<&Version> {
        self.0.last()
    }

    pub fn all(&self) -> &[Version] {
        &self.0
    }

    pub fn all_mut(&mut self) -> &mut [Version] {
        &mut self.0
    }

    fn push(&mut self, version: Version) {
        // Most keys have one or two versions: doubling from four would triple the index.
        if self.0.len() == self.0.capacity() && self.0.len() < 4 {
            self.0.reserve_exact(1);
        }
        self.0.push(version);
    }
}

/// What a version costs beside its key and value; counts toward the quota.
const VERSION_OVERHEAD: u64 = 64;

/// How to take back what was applied and did not become durable.
#[derive(Debug)]
pub enum Undo {
    Granted(i64),
    Revoked(i64, Lease),
    Compacted { before: i64 },
}

/// See the module's head.
#[derive(Debug)]
pub struct Store {
    pub(crate) keys: BTreeMap<Bytes, History>,
    revision: i64,
    compacted: i64,
    pub leases: Leases,
    pub recent: Recent,
    /// (revision, key): at `revision` an older version of `key` became garbage, or `key` died.
    superseded: VecDeque<(i64, Bytes)>,
    /// Keys deleted at the very revision of the last compaction: they go with the next one.
    lingering: Vec<Bytes>,
    collected: i64,
    used_bytes: u64,
    /// Commands applied, ever: what etcd's clients know as the raft index.
    pub applied_index: u64,
}

/// The changes of one revision while they are made.
pub struct Writing {
    pub revision: i64,
    pub subs: u32,
}

impl Store {
    /// An empty store, at revision 1 as upstream's.
    pub fn new(recent_bytes: usize) -> Store {
        Store {
            keys: BTreeMap::new(),
            revision: 1,
            compacted: 0,
            leases: Leases::default(),
            recent: Recent::new(recent_bytes),
            superseded: VecDeque::new(),
            lingering: Vec::new(),
            collected: 0,
            used_bytes: 0,
            applied_index: 0,
        }
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Bytes of all retained keys and values, and what the index adds.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub fn history(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key)
    }

    /// Live keys of `span` at `revision`, in order, after `after`.
    pub fn scan<'a>(
        &'a self,
        span: &'a Span,
        after: Option<&'a [u8]>,
        revision: i64,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Version)> {
        let range = span.bounds(after).map(|bounds| self.keys.range::<[u8], _>(bounds));
        range.into_iter().flatten().filter_map(move |(key, history)| history.at(revision).map(|v| (key, v)))
    }

    /// Whether a read at `revision` (0: newest) may be answered when `newest` is the newest that may be seen; says
    /// at which revision to read.
    pub fn readable(&self, revision: i64, newest: i64) -> Result<i64, Error> {
        if revision <= 0 {
            return Ok(newest);
        }
        if revision > newest {
            return Err(Error::FutureRevision { current: newest });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { compact_revision: self.compacted });
        }
        Ok(revision)
    }

    /// The value of a version: from memory when it is recent.
    pub fn value(&self, version: &Version, values: &dyn Values) -> Result<Bytes, Error> {
        if version.len == 0 {
            return Ok(Bytes::new());
        }
        match self.recent.value(version) {
            Some(value) => Ok(value),
            None => values.load(version.place, version.len),
        }
    }

    /// Starts a new revision. Nothing is visible as a revision until [`Store::finish`].
    pub fn begin(&self) -> Writing {
        Writing { revision: self.revision + 1, subs: 0 }
    }

    /// Ends the revision; one without changes does not count. Returns the newest revision.
    pub fn finish(&mut self, writing: Writing) -> i64 {
        if writing.subs > 0 {
            self.revision = writing.revision;
        }
        self.revision
    }

    /// Writes a key. The lease, when given, exists (the caller checked).
    pub fn put(&mut self, writing: &mut Writing, key: &Bytes, value: Bytes, lease: i64, place: Place) -> Arc<Change> {
        let previous = self.keys.get(key.as_ref()).and_then(|h| h.newest().copied());
        let live = previous.filter(|v| !v.is_tombstone());
        let version = Version {
            modified: writing.revision,
            sub: writing.subs,
            len: value.len() as u32,
            created: live.map_or(writing.revision, |v| v.created),
            version: live.map_or(1, |v| v.version + 1),
            lease,
            place,
        };
        writing.subs += 1;
        let key = self.add(key, version, previous.is_some());
        if let Some(old) = live.filter(|v| v.lease != 0 && v.lease != lease) {
            self.leases.detach(old.lease, &key);
        }
        if lease != 0 && live.is_none_or(|v| v.lease != lease) {
            self.leases.attach(lease, key.clone());
        }
        let kv = KeyValue { value, ..version.without_value(key) };
        self.remember(Change { kv, deleted: false, sub: version.sub, previous: live, prev_kv: OnceLock::new() })
    }

    /// Deletes a live key; `None` when there is none.
    pub fn delete(&mut self, writing: &mut Writing, key: &Bytes) -> Option<Arc<Change>> {
        let live = *self.keys.get(key.as_ref())?.newest().filter(|v| !v.is_tombstone())?;
        let version = Version {
            modified: writing.revision,
            sub: writing.subs,
            len: 0,
            created: 0,
            version: 0,
            lease: 0,
            place: Place::new(0, 0),
        };
        writing.subs += 1;
        let key = self.add(key, version, true);
        if live.lease != 0 {
            self.leases.detach(live.lease, &key);
        }
        let kv = KeyValue { key, mod_revision: version.modified, ..KeyValue::default() };
        let change = Change { kv, deleted: true, sub: version.sub, previous: Some(live), prev_kv: OnceLock::new() };
        Some(self.remember(change))
    }

    /// Live keys of a span at the newest revision: what a range deletion deletes.
    pub fn live_keys(&self, span: &Span) -> Vec<Bytes> {
        self.scan(span, None, i64::MAX).map(|(key, _)| key.clone()).collect()
    }

    fn add(&mut self, key: &Bytes, version: Version, known: bool) -> Bytes {
        self.used_bytes += cost(key, &version);
        if known {
            let owned = self.keys.get_key_value(key.as_ref()).map(|(k, _)| k.clone()).unwrap_or_else(|| key.clone());
            self.superseded.push_back((version.modified, owned.clone()));
            self.keys.entry(owned.clone()).or_default().push(version);
            return owned;
        }
        // A copy of its own: the caller's bytes are a piece of a request buffer, which the index must not keep alive.
        let owned = Bytes::copy_from_slice(key);
        self.keys.entry(owned.clone()).or_default().push(version);
        owned
    }

    fn remember(&mut self, change: Change) -> Arc<Change> {
        let change = Arc::new(change);
        self.recent.push(change.clone());
        change
    }

    /// Forgets history before `revision` for readers; [`Store::collect`] frees it.
    pub fn compact(&mut self, revision: i64) -> Result<Undo, Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted { compact_revision: self.compacted });
        }
        if revision > self.revision {
            return Err(Error::FutureRevision { current: self.revision });
        }
        let before = std::mem::replace(&mut self.compacted, revision);
        Ok(Undo::Compacted { before })
    }

    /// Frees up to `limit` keys' garbage that compaction up to `upto` left; says whether more is left.
    pub fn collect(&mut self, upto: i64, limit: usize) -> bool {
        if upto > self.collected {
            self.collected = upto;
            for key in std::mem::take(&mut self.lingering) {
                self.collect_key(&key, upto);
            }
        }
        for _ in 0..limit {
            let Some((_, key)) = self.superseded.pop_front_if(|(revision, _)| *revision <= upto) else { return false };
            self.collect_key(&key, upto);
        }
        true
    }

    fn collect_key(&mut self, key: &Bytes, upto: i64) {
        let Some(history) = self.keys.get_mut(key) else { return };
        let Some(mut keep_from) = history.0.iter().rposition(|v| v.modified <= upto) else { return };
        let seen = history.0[keep_from];
        if seen.is_tombstone() && seen.modified < upto {
            keep_from += 1;
        } else if seen.is_tombstone() {
            // A deletion at the very revision stays, for watchers that start there.
            self.lingering.push(key.clone());
        }
        for freed in history.0.drain(..keep_from) {
            self.used_bytes -= cost(key, &freed);
        }
        if history.0.is_empty() {
            self.keys.remove(key);
        } else if keep_from > 0 {
            history.0.shrink_to_fit();
        }
    }

    /// Takes back everything after `revision`. `undo` holds what keys do not tell, in the order it was done.
    pub fn rollback(&mut self, revision: i64, undo: Vec<Undo>) {
        let mut touched: Vec<Bytes> = Vec::new();
        while let Some(change) = self.recent.pop_newer(revision) {
            touched.push(change.kv.key.clone());
        }
        touched.sort();
        touched.dedup();
        while self.superseded.back().is_some_and(|(r, _)| *r > revision) {
            self.superseded.pop_back();
        }
        for action in undo.into_iter().rev() {
            match action {
                Undo::Granted(id) => drop(self.leases.remove(id)),
                Undo::Revoked(id, lease) => self.leases.restore(id, lease),
                Undo::Compacted { before } => self.compacted = before,
            }
        }
        for key in touched {
            self.rollback_key(&key, revision);
        }
        self.revision = revision;
    }

    fn rollback_key(&mut self, key: &Bytes, revision: i64) {
        let Some(history) = self.keys.get_mut(key) else { return };
        while let Some(version) = history.0.last().copied().filter(|v| v.modified > revision) {
            self.leases.detach(version.lease, key);
            self.used_bytes -= cost(key, &version);
            history.0.pop();
        }
        match history.0.last() {
            Some(live) if live.lease != 0 => self.leases.attach(live.lease, key.clone()),
            Some(_) => {}
            None => drop(self.keys.remove(key)),
        }
    }

    // ---- recovery

    /// Adds a key with its versions from a checkpoint. Called in key order, then [`Store::loaded`] once.
    pub fn load(&mut self, key: Bytes, versions: Vec<Version>) {
        for version in &versions {
            self.used_bytes += cost(&key, version);
        }
        if let Some(live) = versions.last().filter(|v| v.lease != 0 && !v.is_tombstone()) {
            self.leases.attach(live.lease, key.clone());
        }
        let garbage = versions.iter().skip(1).chain(versions.first().filter(|v| v.is_tombstone()));
        for version in garbage {
            self.superseded.push_back((version.modified, key.clone()));
        }
        self.keys.insert(key, History(versions));
    }

    /// Ends loading a checkpoint.
    pub fn loaded(&mut self, revision: i64, compacted: i64, applied_index: u64) {
        self.revision = revision;
        self.compacted = compacted;
        self.applied_index = applied_index;
        self.superseded.make_contiguous().sort();
        self.recent.start_after(revision);
    }
}

fn cost(key: &[u8], version: &Version) -> u64 {
    key.len() as u64 + u64::from(version.len) + VERSION_OVERHEAD
}
