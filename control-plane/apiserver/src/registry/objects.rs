//! The stored objects of everything that is served: the store, the watch caches before it, and the table of what is where.
//! Below the verbs, which decide what is to be written; here it is written and read. I/O: the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use meta::{Gvr, Status, depth};
use object::metadata;
use serde_json::Value;

use super::{Registry, Served, Stored};
use crate::admission::Extra;
use crate::cache::hub::Hub;
use crate::cache::{Cache, Entry};
use crate::config::Config;
use crate::http::call::Call;
use crate::http::unreadable::Trouble;
use crate::ops::metrics::Metrics;
use crate::storage::lease::Leases;
use crate::storage::{Guard, KeyValue, RangeRequest, Store, StoreError, Txn, TxnOutcome, Write};

/// How long the store may take to say that it is there; upstream's.
const PING: Duration = Duration::from_secs(2);

/// See the module's head.
pub struct Objects {
    pub store: Arc<dyn Store>,
    pub hub: Arc<Hub>,
    pub registry: Arc<ArcSwap<Registry>>,
    /// What all keys begin with; upstream's `/registry`.
    pub root: String,
    /// Highest revision known to be compacted to: lists of older states have expired, whoever still has them.
    pub compacted: AtomicI64,
    pub metrics: Arc<Metrics>,
    /// How long objects of kinds that expire are kept.
    ttl: Duration,
    leases: Leases,
    /// Highest revision that this server has written: its own writes are always read back.
    committed: AtomicI64,
}

/// What became of a guarded write.
pub enum Committed {
    Stored(Arc<Entry>),
    /// The object is not at the expected revision; its current state.
    Conflict(Option<Arc<Entry>>),
    /// The object is, but something allocated along with it was taken meanwhile.
    Taken,
}

/// The store's trouble with a kind's objects, as the client's answer.
pub fn store_error(error: StoreError, served: &Served) -> Status {
    store_status(error, &served.gvr(), "write")
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

impl Objects {
    pub fn new(
        config: &Config,
        store: Arc<dyn Store>,
        hub: Arc<Hub>,
        registry: Registry,
        metrics: Arc<Metrics>,
    ) -> Objects {
        Objects {
            store,
            hub,
            registry: Arc::new(ArcSwap::from_pointee(registry)),
            root: config.etcd_prefix.clone(),
            compacted: AtomicI64::new(0),
            metrics,
            ttl: config.event_ttl,
            leases: Leases::default(),
            committed: AtomicI64::new(0),
        }
    }

    /// The stored bytes of an object, if its newest state is what was sent in these words: who is in this process needs no
    /// copy of them. `namespace` is empty for cluster-scoped kinds.
    pub fn stored_as(&self, group: &str, plural: &str, namespace: &str, name: &str, text: &str) -> Option<Bytes> {
        let entry = self.registry.load().cache(group, plural)?.lookup(namespace, name)?;
        entry.is_sent_as(text.as_bytes()).then(|| entry.value.clone())
    }

    pub fn last_commit(&self) -> i64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Notes that this server has written at a revision.
    pub(super) fn has_committed(&self, revision: i64) {
        self.committed.fetch_max(revision, Ordering::AcqRel);
    }

    /// Where a resource is kept; kinds that are never stored do not support the call.
    pub fn stored<'a>(&self, served: &'a Served) -> Result<&'a Stored, Status> {
        served.store.as_ref().ok_or_else(Status::method_not_allowed)
    }

    /// Store key of a named object of the request's namespace.
    pub fn key_of(&self, call: &Call, served: &Served, name: &str) -> Result<Bytes, Status> {
        let namespace = if served.namespaced() { call.info.namespace.as_str() } else { "" };
        if name.is_empty() || (served.namespaced() && namespace.is_empty()) {
            return Err(Status::method_not_allowed());
        }
        Ok(self.stored(served)?.cache.key(namespace, name))
    }

    /// An object by resource and name: from the cache, or from the store when the cache has not heard of it.
    pub async fn find(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let registry = self.registry.load_full();
        let Some(served) = registry.any(group, plural) else { return Ok(None) };
        let store = self.stored(served)?;
        let key = store.cache.key(namespace, name);
        if let Some(entry) = store.cache.get(&key) {
            return Ok(Some(entry));
        }
        self.live(served, &key).await
    }

    /// An object by resource and name, as the cache has it.
    pub fn lookup(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.registry.load().cache(group, plural)?.lookup(namespace, name)
    }

    /// Every object of a resource (of a namespace, when one is given), as the caches have them.
    pub fn entries(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Entry>> {
        let Some(cache) = self.registry.load().cache(group, plural) else { return Vec::new() };
        cache.snapshot().range(&cache.namespace_prefix(namespace), &Bytes::new()).cloned().collect()
    }

    /// An object from the cache, at least as new as everything this server has written.
    pub async fn cached(&self, served: &Served, key: &Bytes) -> Option<Arc<Entry>> {
        self.hub.wait_for(self.last_commit()).await.ok()?;
        served.store.as_ref()?.cache.get(key)
    }

    /// The newest state of an object, straight from the store.
    pub async fn live(&self, served: &Served, key: &Bytes) -> Result<Option<Arc<Entry>>, Status> {
        let store = self.stored(served)?;
        let _measured = self.metrics.store("get", served);
        let (_, kv) = self.store.get(key.clone()).await.map_err(|e| store_error(e, served))?;
        kv.map(|kv| entry(store, kv)).transpose()
    }

    /// Waits until the caches hold everything that was acknowledged before this call; the revision that they reached.
    pub async fn catch_up(&self, served: &Served) -> Result<i64, Status> {
        self.hub.catch_up().await.map_err(|error| store_error(error, served))
    }

    /// Waits until the cache holds `revision`.
    pub async fn reach(&self, served: &Served, revision: i64) -> Result<(), Status> {
        match self.hub.wait_for(revision).await {
            Ok(()) => Ok(()),
            Err(StoreError::FutureRevision { current }) => {
                Err(Status::too_large_resource_version(revision.max(0) as u64, current.max(0) as u64, 1))
            }
            Err(error) => Err(store_error(error, served)),
        }
    }

    /// Whether the store would keep the same object in another form now: then an update without a change writes it.
    pub async fn is_stale(&self, served: &Served, entry: &Entry) -> Result<bool, Status> {
        self.store.is_stale(entry.key.clone()).await.map_err(|e| store_error(e, served))
    }

    /// Reads a key that is never there, as upstream does: the answer counts, not what it says.
    pub async fn ping(&self) -> Result<(), String> {
        let key = Bytes::from(format!("{}/health", self.root));
        let request = RangeRequest { key, limit: 1, keys_only: true, ..RangeRequest::default() };
        match tokio::time::timeout(PING, self.store.range(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("error getting data from etcd: context deadline exceeded".to_owned()),
        }
    }

    /// Store keys of everything that is served and can't be read, without the prefix of the store.
    pub fn unreadable(&self) -> Vec<String> {
        let registry = self.registry.load();
        let stores = registry.iter().filter(|served| served.native()).filter_map(|served| served.store.as_ref());
        let of = |cache: &Cache| {
            let prefix = String::from_utf8_lossy(&cache.prefix).into_owned();
            let below = prefix.strip_prefix(&self.root).unwrap_or(&prefix).trim_start_matches('/').to_owned();
            cache.corrupt_below(&cache.prefix).into_iter().map(move |tail| format!("{below}{tail}")).collect::<Vec<_>>()
        };
        stores.flat_map(|store| of(&store.cache)).collect()
    }

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
                let seconds = self.ttl.as_secs().try_into().unwrap_or(i64::MAX);
                self.leases.get(&*self.store, seconds).await.map_err(|e| store_error(e, served))?
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
        let outcome = self.store.txn(txn).await.map_err(|e| store_error(e, served))?;
        drop(measured);
        match outcome {
            TxnOutcome::Committed { revision } => {
                self.has_committed(revision);
                let kv = KeyValue { key: key.clone(), value, create_revision: revision, mod_revision: revision, lease };
                // What another version has written is read with what the stored version makes of it.
                let entry = match served.custom && !served.native() {
                    true => store.cache.entry(kv).map(Arc::new),
                    false => store.cache.written(kv),
                };
                entry.map(Committed::Stored).map_err(|corrupt| corrupt.status())
            }
            TxnOutcome::Conflict { current, .. } => Self::lost(store, expected, current),
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
        let outcome = self.store.txn(txn).await.map_err(|e| store_error(e, served))?;
        drop(measured);
        match outcome {
            TxnOutcome::Committed { revision } => {
                self.has_committed(revision);
                Ok(Committed::Stored(Arc::new(entry.at_revision(revision))))
            }
            TxnOutcome::Conflict { current, .. } => Self::lost(store, entry.revision, current),
        }
    }

    fn lost(store: &Stored, expected: i64, current: Vec<Option<KeyValue>>) -> Result<Committed, Status> {
        match current.into_iter().next().flatten() {
            Some(kv) if kv.mod_revision == expected => Ok(Committed::Taken),
            // Something is there, be it readable or not.
            Some(_) if expected == 0 => Ok(Committed::Conflict(None)),
            Some(kv) => Ok(Committed::Conflict(Some(entry(store, kv)?))),
            None if expected == 0 => Ok(Committed::Taken),
            None => Ok(Committed::Conflict(None)),
        }
    }
}

fn entry(store: &Stored, kv: KeyValue) -> Result<Arc<Entry>, Status> {
    // What the cache already holds shares its labels and encodings.
    if let Some(entry) = store.cache.get(&kv.key).filter(|entry| entry.revision == kv.mod_revision) {
        return Ok(entry);
    }
    store.cache.entry(kv).map(Arc::new).map_err(|corrupt| corrupt.status())
}
