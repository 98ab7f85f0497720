//! Our etcd as the API server's store, in process: the bytes that the store holds are the bytes that the server
//! serves. The other implementation of the same trait speaks gRPC to any etcd cluster.

use apiserver::storage::{
    KeyValue, RangeRequest, RangeResponse, Store, StoreError, StoreEvent, StoreStatus, Txn, TxnOutcome, WatchBatch,
    WatchStream, Write,
};
use async_trait::async_trait;
use bytes::Bytes;
use etcd::{Etcd, WatchMessage, WatchOptions};
use futures::StreamExt;
use futures::stream;
use wire::etcd as pb;

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
        E::TooManyRequests | E::Stopped | E::LogFailed(_) => StoreError::Unavailable(error.to_string()),
        other => StoreError::Fault(other.to_string()),
    }
}

fn kv(kv: &pb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        lease: kv.lease,
    }
}

fn event(change: &etcd::Change) -> StoreEvent {
    if change.deleted {
        StoreEvent::Delete { key: change.kv.key.clone(), revision: change.revision() }
    } else {
        StoreEvent::Put(kv(&change.kv))
    }
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |h| h.revision)
}

fn guarded(txn: &Txn) -> pb::TxnRequest {
    let compare = txn.guards.iter().map(|guard| pb::Compare {
        result: pb::compare::CompareResult::Equal as i32,
        target: pb::compare::CompareTarget::Mod as i32,
        key: guard.key.clone(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(guard.mod_revision)),
        ..pb::Compare::default()
    });
    let write = |write: &Write| match write {
        Write::Put { key, value, lease } => pb::request_op::Request::RequestPut(pb::PutRequest {
            key: key.clone(),
            value: value.clone(),
            lease: *lease,
            ..pb::PutRequest::default()
        }),
        Write::Delete { key } => pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key.clone(),
            ..pb::DeleteRangeRequest::default()
        }),
    };
    let read = |key: &Bytes| {
        pb::request_op::Request::RequestRange(pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() })
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    pb::TxnRequest {
        compare: compare.collect(),
        success: txn.writes.iter().map(|w| op(write(w))).collect(),
        failure: txn.guards.iter().map(|g| op(read(&g.key))).collect(),
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let request = pb::RangeRequest {
            key: request.key,
            range_end: request.end,
            revision: request.revision,
            limit: request.limit as i64,
            keys_only: request.keys_only,
            count_only: request.count_only,
            ..pb::RangeRequest::default()
        };
        let answer = self.0.range(request).await.map_err(fault)?;
        Ok(RangeResponse {
            revision: revision(answer.header.as_ref()),
            kvs: answer.kvs.iter().map(kv).collect(),
            count: answer.count as usize,
        })
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let answer = self.0.txn(guarded(&txn)).await.map_err(fault)?;
        let revision = revision(answer.header.as_ref());
        if answer.succeeded {
            return Ok(TxnOutcome::Committed { revision });
        }
        let current = answer.responses.iter().map(|response| match &response.response {
            Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.first().map(kv),
            _ => None,
        });
        Ok(TxnOutcome::Conflict { revision, current: current.collect() })
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
        Ok(self.0.revision())
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let status = self.0.status();
        Ok(StoreStatus { db_size: status.disk_bytes as i64, revision: status.revision })
    }
}
