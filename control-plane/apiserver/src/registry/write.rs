//! Putting an object into the store, and what every write does to metadata.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use meta::{Gvr, Status, depth};
use object::metadata;
use serde_json::Value;

use super::{Served, Stored};
use crate::admission::Extra;
use crate::cache::Entry;
use crate::http::unreadable::Trouble;
use crate::server::Core;
use crate::storage::{Guard, KeyValue, StoreError, Txn, TxnOutcome, Write};

/// What became of a guarded write.
pub enum Committed {
    Stored(Arc<Entry>),
    /// The object is not at the expected revision; its current state.
    Conflict(Option<Arc<Entry>>),
    /// The object is, but something allocated along with it was taken meanwhile.
    Taken,
}

/// The store's trouble as the client's answer.
pub fn store_status(error: StoreError, gvr: &Gvr, operation: &str) -> Status {
    match error {
        StoreError::Compacted { .. } => {
            Status::expired("The provided resource version is too old and has been compacted.")
        }
        StoreError::FutureRevision { current } => {
            Status::too_large_resource_version(current.max(0) as u64 + 1, current.max(0) as u64, 1)
        }
        StoreError::NoSpace(_) | StoreError::TooLarge(_) => {
            Status::failure(500, meta::Reason::InternalError, error.to_string())
        }
        StoreError::Unavailable(_) | StoreError::LeaseNotFound => {
            tracing::warn!(%error, operation, "the store did not answer");
            Status::server_timeout(gvr, operation, 1)
        }
        StoreError::Fault(_) => Status::internal(error),
    }
}

/// Whether an object may be stored, with all that this server has added to it. Everything that is written comes by here:
/// whatever a patch, a default or managed fields made of a body, readers can read it.
pub fn check_depth(served: &Served, object: &Value) -> Result<(), Status> {
    if depth::fits(object) {
        return Ok(());
    }
    Err(undecodable(served, format!("json: {}", depth::TOO_DEEP)))
}

fn undecodable(served: &Served, why: String) -> Status {
    Trouble::Undecodable { given: None, why }.of_body(&served.kind.gvk(), &[])
}

impl Core {
    /// Writes an object that must be at revision `expected` (0: must not exist).
    pub async fn commit(
        &self,
        served: &Served,
        key: &Bytes,
        expected: i64,
        object: Value,
        extra: Extra,
    ) -> Result<Committed, Status> {
        let store = self.stored(served)?;
        let mut object = served.to_storage(object).await?;
        metadata(&mut object).remove("resourceVersion");
        check_depth(served, &object)?;
        // Kept as long as it is stored: without the room that growing leaves.
        let value = Bytes::from(serde_json::to_vec(&object).map_err(Status::internal)?.into_boxed_slice());
        drop(object);
        if !served.native() {
            // What conversion made of it was decoded as nothing yet.
            store.cache.check(&value).map_err(|why| undecodable(served, why))?;
        }
        let lease = match store.kind.storage.as_ref().and_then(|s| s.ttl_seconds) {
            Some(_) => {
                let seconds = self.config.event_ttl.as_secs().try_into().unwrap_or(i64::MAX);
                self.leases.get(&*self.store, seconds).await.map_err(|e| self.store_error(e, served))?
            }
            None => 0,
        };
        let mut txn = Txn {
            guards: vec![Guard { key: key.clone(), mod_revision: expected }],
            writes: vec![Write::Put { key: key.clone(), value: value.clone(), lease }],
        };
        let extra = extra.into_parts();
        txn.guards.extend(extra.guards);
        txn.writes.extend(extra.writes);
        let measured = self.metrics.store(if expected == 0 { "create" } else { "update" }, served);
        let outcome = self.store.txn(txn).await.map_err(|e| self.store_error(e, served))?;
        drop(measured);
        match outcome {
            TxnOutcome::Committed { revision } => {
                self.committed.fetch_max(revision, Ordering::AcqRel);
                let kv = KeyValue { key: key.clone(), value, create_revision: revision, mod_revision: revision, lease };
                // What another version has written is read with what the stored version makes of it.
                let entry = match served.custom && !served.native() {
                    true => store.cache.entry(kv).map(Arc::new),
                    false => store.cache.written(kv),
                };
                entry.map(Committed::Stored).map_err(|corrupt| corrupt.status())
            }
            TxnOutcome::Conflict { current, .. } => self.lost(store, expected, current),
        }
    }

    /// Removes an object that must be at revision `expected`; the last state at the revision of its deletion.
    pub async fn erase(&self, served: &Served, entry: &Entry, extra: Extra) -> Result<Committed, Status> {
        let store = self.stored(served)?;
        let mut txn = Txn::delete(entry.key.clone(), entry.revision);
        let extra = extra.into_parts();
        txn.guards.extend(extra.guards);
        txn.writes.extend(extra.writes);
        let measured = self.metrics.store("delete", served);
        let outcome = self.store.txn(txn).await.map_err(|e| self.store_error(e, served))?;
        drop(measured);
        match outcome {
            TxnOutcome::Committed { revision } => {
                self.committed.fetch_max(revision, Ordering::AcqRel);
                Ok(Committed::Stored(Arc::new(entry.at_revision(revision))))
            }
            TxnOutcome::Conflict { current, .. } => self.lost(store, entry.revision, current),
        }
    }

    fn lost(&self, store: &Stored, expected: i64, current: Vec<Option<KeyValue>>) -> Result<Committed, Status> {
        match current.into_iter().next().flatten() {
            Some(kv) if kv.mod_revision == expected => Ok(Committed::Taken),
            // Something is there, be it readable or not.
            Some(_) if expected == 0 => Ok(Committed::Conflict(None)),
            Some(kv) => Ok(Committed::Conflict(Some(self.entry(store, kv)?))),
            None if expected == 0 => Ok(Committed::Taken),
            None => Ok(Committed::Conflict(None)),
        }
    }

    /// The newest state of an object, straight from the store.
    pub async fn live(&self, served: &Served, key: &Bytes) -> Result<Option<Arc<Entry>>, Status> {
        let store = self.stored(served)?;
        let _measured = self.metrics.store("get", served);
        let (_, kv) = self.store.get(key.clone()).await.map_err(|e| self.store_error(e, served))?;
        kv.map(|kv| self.entry(store, kv)).transpose()
    }

    fn entry(&self, store: &Stored, kv: KeyValue) -> Result<Arc<Entry>, Status> {
        // What the cache already holds shares its labels and encodings.
        if let Some(entry) = store.cache.get(&kv.key).filter(|entry| entry.revision == kv.mod_revision) {
            return Ok(entry);
        }
        store.cache.entry(kv).map(Arc::new).map_err(|corrupt| corrupt.status())
    }

    /// Where a resource is kept; kinds that are never stored do not support the call.
    pub fn stored<'a>(&self, served: &'a Served) -> Result<&'a Stored, Status> {
        served.store.as_ref().ok_or_else(Status::method_not_allowed)
    }

    pub fn store_error(&self, error: StoreError, served: &Served) -> Status {
        store_status(error, &served.gvr(), "write")
    }
}
