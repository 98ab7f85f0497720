//! The contract between the API server and the store behind it.
//!
//! [`Store`] is the part of etcd that a Kubernetes API server needs: reads at a revision, transactions guarded by
//! mod revisions, one ordered watch, leases for expiring keys, compaction. Three implementations exist: [`memory`]
//! (tests), [`remote`] (an etcd cluster over gRPC) and the in-process adapter of our own etcd, which lives in the
//! binary; [`encryption`] stands in front of one of them. Keys follow upstream's layout (see [`keys`]); values are opaque bytes that implementations share, not copy.

pub mod compactor;
pub mod encryption;
pub mod keys;
pub mod lease;
pub mod memory;
pub mod remote;
pub mod v3;

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

/// One live key as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision at which this incarnation of the key was created.
    pub create_revision: i64,
    /// Revision of the last write of the key: the `resourceVersion` of an object.
    pub mod_revision: i64,
    /// Lease the key hangs on, 0 for none.
    pub lease: i64,
}

/// A read of `[key, end)`; an empty `end` reads the single key.
#[derive(Debug, Clone, Default)]
pub struct RangeRequest {
    pub key: Bytes,
    pub end: Bytes,
    /// 0 reads the newest state (linearizable); otherwise the state at that revision.
    pub revision: i64,
    /// Most keys to return, 0 for all.
    pub limit: usize,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return only `count`.
    pub count_only: bool,
}

/// Answer of a range: keys in order.
#[derive(Debug, Clone, Default)]
pub struct RangeResponse {
    /// Store revision at the time of the read (not the requested one).
    pub revision: i64,
    pub kvs: Vec<KeyValue>,
    /// Keys in the whole range, whatever the limit.
    pub count: usize,
}

/// Guard of a transaction: the key's mod revision must be this; 0 means that the key must not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub key: Bytes,
    pub mod_revision: i64,
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put {
        key: Bytes,
        value: Bytes,
        /// Lease to hang the key on, 0 for none.
        lease: i64,
    },
    Delete {
        key: Bytes,
    },
}

/// All writes happen at one new revision if every guard holds, or none does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    pub guards: Vec<Guard>,
    pub writes: Vec<Write>,
}

impl Txn {
    /// Creates one key that must not exist yet.
    pub fn create(key: Bytes, value: Bytes, lease: i64) -> Txn {
        Txn {
            guards: vec![Guard { key: key.clone(), mod_revision: 0 }],
            writes: vec![Write::Put { key, value, lease }],
        }
    }

    /// Replaces one key that must be at `mod_revision`.
    pub fn update(key: Bytes, value: Bytes, mod_revision: i64, lease: i64) -> Txn {
        Txn { guards: vec![Guard { key: key.clone(), mod_revision }], writes: vec![Write::Put { key, value, lease }] }
    }

    /// Removes one key that must be at `mod_revision`.
    pub fn delete(key: Bytes, mod_revision: i64) -> Txn {
        Txn { guards: vec![Guard { key: key.clone(), mod_revision }], writes: vec![Write::Delete { key }] }
    }

    /// Adds an unguarded delete to the same revision (deleting a missing key is no error).
    pub fn and_delete(mut self, key: Bytes) -> Txn {
        self.writes.push(Write::Delete { key });
        self
    }
}

/// What became of a transaction.
#[derive(Debug, Clone)]
pub enum TxnOutcome {
    /// Durable at this revision (for a transaction that changes nothing: the current revision).
    Committed { revision: i64 },
    /// Some guard failed; the guarded keys' current state, in guard order, read at `revision`.
    Conflict { revision: i64, current: Vec<Option<KeyValue>> },
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    Put(KeyValue),
    /// The key is gone; `revision` is that of the deletion (also by lease expiry).
    Delete {
        key: Bytes,
        revision: i64,
    },
}

impl StoreEvent {
    pub fn key(&self) -> &Bytes {
        match self {
            StoreEvent::Put(kv) => &kv.key,
            StoreEvent::Delete { key, .. } => key,
        }
    }

    pub fn revision(&self) -> i64 {
        match self {
            StoreEvent::Put(kv) => kv.mod_revision,
            StoreEvent::Delete { revision, .. } => *revision,
        }
    }
}

/// Events in revision order. Everything of the watched range up to and including `revision` has been delivered once
/// the batch is taken; a revision is never split over two batches. No events means a progress notification.
#[derive(Debug, Clone, Default)]
pub struct WatchBatch {
    pub revision: i64,
    pub events: Vec<StoreEvent>,
}

/// Ends with an error ([`StoreError::Compacted`] when the start is too old, [`StoreError::Unavailable`] when the
/// connection broke: the caller reopens from the last revision it has seen, plus one), or never.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchBatch, StoreError>> + Send>>;

/// What can go wrong in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for was compacted away.
    #[error("required revision has been compacted")]
    Compacted { compact_revision: i64 },
    /// The revision asked for does not exist yet.
    #[error("required revision is a future revision")]
    FutureRevision { current: i64 },
    /// No room on the store's disk or quota; reads still work.
    #[error("database space exceeded: {0}")]
    NoSpace(String),
    /// The value or transaction is larger than the store takes.
    #[error("request is too large: {0}")]
    TooLarge(String),
    /// The lease is gone.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The store cannot be reached or did not answer in time; the outcome of a write is unknown.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The store answered what it must never answer.
    #[error("store fault: {0}")]
    Fault(String),
}

/// Size and revision of the store, for metrics and health.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreStatus {
    /// Bytes on disk.
    pub db_size: i64,
    pub revision: i64,
}

/// The store. Methods are linearizable unless said otherwise; dropping a future before it is done leaves the outcome
/// of a write unknown, as a lost connection would.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads keys at a revision.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError>;

    /// Applies a guarded transaction; returns when it is durable.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// Watches `[key, end)` from `start_revision` on (inclusive), in revision order.
    async fn watch(&self, key: Bytes, end: Bytes, start_revision: i64) -> Result<WatchStream, StoreError>;

    /// Asks that every open watch soon gets a batch that carries the current revision, with or without events.
    async fn request_progress(&self) -> Result<(), StoreError>;

    /// Grants a lease of at least `ttl_seconds`; keys put with it are deleted when it ends. It is never renewed.
    async fn grant_lease(&self, ttl_seconds: i64) -> Result<i64, StoreError>;

    /// Forgets history before `revision`.
    async fn compact(&self, revision: i64) -> Result<(), StoreError>;

    /// The newest revision (linearizable: no write acknowledged before the call is newer).
    async fn revision(&self) -> Result<i64, StoreError>;

    /// Size and revision.
    async fn status(&self) -> Result<StoreStatus, StoreError>;

    /// Whether writing a key's value again would store it in another form: a store that encrypts knows such values.
    async fn is_stale(&self, _key: Bytes) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Reads one key at the newest revision.
    async fn get(&self, key: Bytes) -> Result<(i64, Option<KeyValue>), StoreError> {
        let answer = self.range(RangeRequest { key, ..RangeRequest::default() }).await?;
        Ok((answer.revision, answer.kvs.into_iter().next()))
    }
}
