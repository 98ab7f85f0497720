//! Our etcd as the API server's store, in process: the bytes that the store holds are the bytes that the server
//! serves. The other implementation of the same trait speaks gRPC to any etcd cluster; how a host reaches it is said here,
//! too ([`elsewhere`]).

use anyhow::Result;
use apiserver::config::KeyPair;
use apiserver::storage::{
    RangeRequest, RangeResponse, Store, StoreError, StoreEvent, StoreStatus, Txn, TxnOutcome, WatchBatch, WatchStream,
    remote, v3,
};
use async_trait::async_trait;
use bytes::Bytes;
use etcd::{Etcd, WatchMessage, WatchOptions};
use futures::StreamExt;
use futures::stream;

use crate::config::{Host, list};
use crate::fault::Fault;

/// The etcd cluster of `--etcd-servers`, if there is one.
pub fn elsewhere(host: &Host) -> Option<remote::Config> {
    let options = &host.options;
    let client = options.etcd_certfile.clone().zip(options.etcd_keyfile.clone());
    host.cluster.has_etcd_elsewhere().then(|| remote::Config {
        endpoints: list(&host.cluster.options.etcd_servers).to_vec(),
        ca_file: options.etcd_cafile.clone(),
        client: client.map(|(cert_file, key_file)| KeyPair { cert_file, key_file }),
    })
}

/// Fails when the store holds a cluster already: whoever has just made its keys has another's. `root` is what all keys
/// begin with.
pub async fn check_empty(store: &dyn Store, root: &str) -> Result<()> {
    let key = format!("{root}/configmaps/kube-system/extension-apiserver-authentication");
    let (_, found) = store.get(key.into()).await?;
    if found.is_none() {
        return Ok(());
    }
    let sentence = format!(
        "the etcd of --etcd-servers holds a cluster under {root}/ already, and this host has none of its keys: \
         `ferrokube token create --control-plane` on one of its servers prints the command by which this one joins it; \
         for another cluster say --kube-apiserver-arg etcd-prefix=/NAME"
    );
    Err(Fault::failed(sentence).into())
}

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

#[cfg(test)]
mod tests {
    use apiserver::storage::memory::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn new_keys_are_of_no_use_for_a_cluster_that_is_there() {
        let store = MemoryStore::default();
        check_empty(&store, "/registry").await.expect("nothing is in it");
        let key = Bytes::from_static(b"/registry/configmaps/kube-system/extension-apiserver-authentication");
        store.txn(Txn::create(key, Bytes::from_static(b"{}"), 0)).await.expect("put");
        let said = check_empty(&store, "/registry").await.expect_err("refused").to_string();
        assert!(said.contains("token create --control-plane"), "{said}");
        check_empty(&store, "/other").await.expect("another cluster's place");
    }
}
