//! Our etcd as the API server's store, in process: the bytes that the store holds are the bytes that the server
//! serves. The other implementation of the same trait speaks gRPC to any etcd cluster.

use apiserver::storage::{
    RangeRequest, RangeResponse, Store, StoreError, StoreEvent, StoreStatus, Txn, TxnOutcome, WatchBatch, WatchStream,
    v3,
};
use async_trait::async_trait;
use bytes::Bytes;
use etcd::{Etcd, WatchMessage, WatchOptions};
use futures::StreamExt;
use futures::stream;

/// See the module's head. Cloning shares the store.
#[derive(Clone)]
pub struct LocalStore(pub Etcd);

fn fault(error: etcd::Error) -> StoreError {
    use etcd::Error as E;
    match error {
        E::Compacted { compact_revision } => StoreError::Compacted { compact_revision },
        E::FutureRevision { current } => StoreError::FutureRevision { current },
        E::NoSpace | E::DiskFull { .. } => StoreError::NoSpace(error.to_string()),
        E::TooLarge | E::TooManyOps => StoreError::TooLarge(error.to_string()),
        E::LeaseNotFound => StoreError::LeaseNotFound,
        E::TooManyRequests | E::Stopped | E::NoLeader | E::LeaderChanged | E::LogFailed(_) => {
            StoreError::Unavailable(error.to_string())
        }
        other => StoreError::Fault(other.to_string()),
    }
}

fn event(change: &etcd::Change) -> StoreEvent {
    if change.deleted {
        StoreEvent::Delete { key: change.kv.key.clone(), revision: change.revision() }
    } else {
        StoreEvent::Put(v3::key_value(change.kv.clone()))
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.0.range(v3::range_request(request)).await.map(v3::range_response).map_err(fault)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.0.txn(v3::txn_request(txn)).await.map(v3::txn_outcome).map_err(fault)
    }

    async fn watch(&self, key: Bytes, end: Bytes, start_revision: i64) -> Result<WatchStream, StoreError> {
        let options = WatchOptions { key, range_end: end, start_revision, progress: true, ..WatchOptions::default() };
        let watcher = self.0.watch(options);
        let batches = stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            let (batch, more) = match watcher.next().await {
                None => (Err(StoreError::Unavailable("the store is closed".into())), false),
                Some(WatchMessage::Changes { revision, changes }) => {
                    (Ok(WatchBatch { revision, events: changes.iter().map(|c| event(c)).collect() }), true)
                }
                Some(WatchMessage::Progress { revision }) => (Ok(WatchBatch { revision, events: vec![] }), true),
                Some(WatchMessage::Compacted { compact_revision }) => {
                    (Err(StoreError::Compacted { compact_revision }), false)
                }
                Some(WatchMessage::Failed(error)) => (Err(fault(error)), false),
            };
            Some((batch, more.then_some(watcher)))
        });
        Ok(batches.boxed())
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.0.request_progress();
        Ok(())
    }

    async fn grant_lease(&self, ttl_seconds: i64) -> Result<i64, StoreError> {
        self.0.lease_grant(0, ttl_seconds).await.map(|lease| lease.id).map_err(fault)
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        self.0.compact(revision, false).await.map(|_| ()).map_err(fault)
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        self.0.read_index().await.map_err(fault)
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let status = self.0.status();
        Ok(StoreStatus { db_size: status.disk_bytes as i64, revision: status.revision })
    }
}
