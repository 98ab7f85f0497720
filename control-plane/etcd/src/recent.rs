//! The newest changes, in revision order, with their values: what watchers that lag a little and reads of fresh keys
//! are answered from without touching the disk. Bounded by bytes; what is not durable yet is never evicted. Pure.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use wire::etcd::KeyValue;

use crate::mvcc::Version;
use crate::span::Span;

/// One change of one key, shared by the store and every watcher.
#[derive(Debug)]
pub struct Change {
    /// As written; for a deletion only key and `mod_revision`.
    pub kv: KeyValue,
    pub deleted: bool,
    /// Order within the revision.
    pub sub: u32,
    /// What the key held before, if it was live.
    pub previous: Option<Version>,
    /// The same with its value, once a watcher wanted it.
    pub prev_kv: OnceLock<Option<KeyValue>>,
}

impl Change {
    pub fn revision(&self) -> i64 {
        self.kv.mod_revision
    }

    fn cost(&self) -> usize {
        /// The structs of a change, beside its bytes.
        const FIXED: usize = 256;
        FIXED + self.kv.key.len() + self.kv.value.len()
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Recent {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    budget: usize,
    /// Every change after this revision is here.
    complete_after: i64,
}

impl Recent {
    pub fn new(budget: usize) -> Recent {
        Recent { changes: VecDeque::new(), bytes: 0, budget, complete_after: 1 }
    }

    /// Says that changes up to `revision` were never seen here.
    pub fn start_after(&mut self, revision: i64) {
        self.complete_after = revision;
    }

    pub fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.cost();
        self.changes.push_back(change);
    }

    /// Forgets the oldest durable changes beyond the budget, whole revisions at a time.
    pub fn trim(&mut self, durable: i64) {
        while self.bytes > self.budget {
            let Some(oldest) = self.changes.front().map(|c| c.revision()).filter(|r| *r <= durable) else { return };
            while let Some(change) = self.changes.pop_front_if(|c| c.revision() == oldest) {
                self.bytes -= change.cost();
            }
            self.complete_after = oldest;
        }
    }

    /// Forgets changes up to `revision`: history before it can't be watched any more.
    pub fn forget(&mut self, revision: i64) {
        while let Some(change) = self.changes.pop_front_if(|c| c.revision() < revision) {
            self.bytes -= change.cost();
            self.complete_after = change.revision();
        }
        if self.changes.len() * 4 < self.changes.capacity() {
            self.changes.shrink_to(self.changes.len() * 2);
        }
    }

    /// Takes the newest change back when it is newer than `revision`.
    pub fn pop_newer(&mut self, revision: i64) -> Option<Arc<Change>> {
        let change = self.changes.pop_back_if(|c| c.revision() > revision)?;
        self.bytes -= change.cost();
        Some(change)
    }

    /// Whether every change from `revision` on is here.
    pub fn covers(&self, revision: i64) -> bool {
        revision > self.complete_after
    }

    /// The value of a version, when it is here.
    pub fn value(&self, version: &Version) -> Option<Bytes> {
        let wanted = (version.modified, version.sub);
        let at = self.changes.binary_search_by_key(&wanted, |c| (c.revision(), c.sub)).ok()?;
        Some(self.changes[at].kv.value.clone())
    }

    /// Changes of `span` with revisions in `from..=to`: whole revisions, at most about `limit` changes looked at.
    /// Also says up to which revision the answer is complete.
    pub fn slice(&self, span: &Span, from: i64, to: i64, limit: usize) -> (Vec<Arc<Change>>, i64) {
        let start = self.changes.partition_point(|c| c.revision() < from);
        let mut found = Vec::new();
        let mut reached = from - 1;
        for (seen, change) in self.changes.range(start..).enumerate() {
            let revision = change.revision();
            if revision > to || (seen >= limit && revision > reached) {
                return (found, if revision > to { to } else { reached });
            }
            reached = revision;
            if span.contains(&change.kv.key) {
                found.push(change.clone());
            }
        }
        (found, to)
    }
}
