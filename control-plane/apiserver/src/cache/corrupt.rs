//! Stored bytes that are no object of their resource: torn, written by somebody else, of the wrong type, or nested too
//! deep. Such an object is never taken for an empty one, nor for one that is gone, and never stops anybody: the cache
//! leaves it out of lists, remembers it and says so once; watchers hear nothing until it can be read again or is gone; a
//! read of it by name is an error; an administrator removes it with the delete option that upstream has for it. Pure;
//! [`super::Cache`] and the registry call it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use meta::Status;

use super::Entry;
use crate::storage::keys;

/// Longest reason that is kept and shown: it may quote a value of the object.
const LONGEST_REASON: usize = 200;

/// Whether an answer says that a stored object can't be read. It tells so by its words alone, as upstream's does.
pub fn is_told_by(status: &Status) -> bool {
    says(status.code, &status.message)
}

/// The same of a code and a message.
pub fn says(code: u16, message: &str) -> bool {
    code == 500 && message.contains("StorageError: corrupt object")
}

/// One object that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt {
    pub key: Bytes,
    /// Mod revision of the bytes.
    pub revision: i64,
    /// What is wrong with them.
    pub why: String,
}

impl Corrupt {
    pub fn new(key: Bytes, revision: i64, why: &str) -> Corrupt {
        Corrupt { key, revision, why: why.chars().take(LONGEST_REASON).collect() }
    }

    /// The answer to a request for the object, in upstream's words.
    pub fn status(&self) -> Status {
        let key = String::from_utf8_lossy(&self.key);
        let (revision, why) = (self.revision, &self.why);
        Status::internal(format_args!(
            "StorageError: corrupt object, Code: 7, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: object not decodable revision={revision}: {why}"
        ))
    }

    /// Logs what and why, never the bytes.
    pub fn log(&self) {
        let key = String::from_utf8_lossy(&self.key);
        let (revision, why) = (self.revision, self.why.as_str());
        tracing::error!(%key, revision, why, "a stored object can't be read and is left out; delete it with ignoreStoreReadErrorWithClusterBreakingPotential");
    }
}

/// The objects of one resource that can't be read now.
#[derive(Debug, Default)]
pub struct CorruptSet {
    by_key: BTreeMap<Bytes, Known>,
}

#[derive(Debug)]
struct Known {
    corrupt: Corrupt,
    /// As it last could be read, since the last load: what watchers know of it.
    last: Option<Arc<Entry>>,
}

impl CorruptSet {
    /// Remembers one, and tells it unless this set knows that revision of it. `last` is what there was of it until now.
    pub fn insert(&mut self, corrupt: Corrupt, last: Option<Arc<Entry>>) {
        let before = self.by_key.remove(&corrupt.key);
        if before.as_ref().is_none_or(|before| before.corrupt.revision != corrupt.revision) {
            corrupt.log();
        }
        let last = last.or_else(|| before.and_then(|before| before.last));
        self.by_key.insert(corrupt.key.clone(), Known { corrupt, last });
    }

    /// The object can be read again, or is gone; as it last could be read.
    pub fn remove(&mut self, key: &Bytes) -> Option<Arc<Entry>> {
        self.by_key.remove(key)?.last
    }

    /// Replaces all by what a load found.
    pub fn load(&mut self, found: Vec<Corrupt>) {
        let before = std::mem::take(&mut self.by_key);
        for corrupt in found {
            if before.get(&corrupt.key).is_none_or(|known| known.corrupt.revision != corrupt.revision) {
                corrupt.log();
            }
            self.by_key.insert(corrupt.key.clone(), Known { corrupt, last: None });
        }
    }

    /// Keys that begin with `prefix`, in their order.
    pub fn below(&self, prefix: &Bytes) -> impl Iterator<Item = &Bytes> {
        let end = keys::prefix_end(prefix);
        let to = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        self.by_key.range((Bound::Included(prefix.clone()), to)).map(|(key, _)| key)
    }
}
