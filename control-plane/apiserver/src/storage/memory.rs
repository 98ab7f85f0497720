//! A store in memory with full history until compaction: the double used by unit tests and by throwaway servers.
//! No I/O, no durability; leases never expire, so tests are deterministic.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{
    KeyValue, RangeRequest, RangeResponse, Store, StoreError, StoreEvent, StoreStatus, Txn, TxnOutcome, WatchBatch,
    WatchStream, Write,
};

type Sender = mpsc::UnboundedSender<Result<WatchBatch, StoreError>>;

struct Watcher {
    key: Bytes,
    end: Bytes,
    sender: Sender,
}

#[derive(Default)]
struct State {
    revision: i64,
    compacted: i64,
    next_lease: i64,
    live: BTreeMap<Bytes, KeyValue>,
    /// Every event since the last compaction, in revision order.
    history: Vec<StoreEvent>,
    watchers: Vec<Watcher>,
}

/// See the module's head. Cloning shares the state.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore { state: Arc::new(Mutex::new(State { revision: 1, ..State::default() })) }
    }
}

fn within(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    if end.is_empty() { key == start } else { key >= start && key < end }
}

impl State {
    fn at(&self, revision: i64) -> Result<BTreeMap<Bytes, KeyValue>, StoreError> {
        if revision < self.compacted {
            return Err(StoreError::Compacted { compact_revision: self.compacted });
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision { current: self.revision });
        }
        let mut state = BTreeMap::new();
        for event in self.history.iter().take_while(|e| e.revision() <= revision) {
            match event {
                StoreEvent::Put(kv) => state.insert(kv.key.clone(), kv.clone()),
                StoreEvent::Delete { key, .. } => state.remove(key),
            };
        }
        Ok(state)
    }

    fn apply(&mut self, writes: Vec<Write>) -> i64 {
        let revision = self.revision + 1;
        let mut events = Vec::new();
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    let create_revision = self.live.get(&key).map_or(revision, |old| old.create_revision);
                    let kv = KeyValue { key: key.clone(), value, create_revision, mod_revision: revision, lease };
                    self.live.insert(key, kv.clone());
                    events.push(StoreEvent::Put(kv));
                }
                Write::Delete { key } => {
                    if self.live.remove(&key).is_some() {
                        events.push(StoreEvent::Delete { key, revision });
                    }
                }
            }
        }
        if events.is_empty() {
            return self.revision;
        }
        self.revision = revision;
        self.watchers.retain(|w| {
            let seen: Vec<_> = events.iter().filter(|e| within(e.key(), &w.key, &w.end)).cloned().collect();
            seen.is_empty() || w.sender.send(Ok(WatchBatch { revision, events: seen })).is_ok()
        });
        self.history.extend(events);
        revision
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let state = self.state.lock();
        let old;
        let view = match request.revision {
            0 => &state.live,
            revision => {
                old = state.at(revision)?;
                &old
            }
        };
        let mut answer = RangeResponse { revision: state.revision, ..RangeResponse::default() };
        if request.end.is_empty() {
            answer.kvs.extend(view.get(&request.key).cloned());
            answer.count = answer.kvs.len();
            return Ok(answer);
        }
        for (_, kv) in view.range(request.key.clone()..request.end.clone()) {
            answer.count += 1;
            if !request.count_only && (request.limit == 0 || answer.kvs.len() < request.limit) {
                let value = if request.keys_only { Bytes::new() } else { kv.value.clone() };
                answer.kvs.push(KeyValue { value, ..kv.clone() });
            }
        }
        Ok(answer)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let mut state = self.state.lock();
        let holds = txn.guards.iter().all(|g| state.live.get(&g.key).map_or(0, |kv| kv.mod_revision) == g.mod_revision);
        if !holds {
            let current = txn.guards.iter().map(|g| state.live.get(&g.key).cloned()).collect();
            return Ok(TxnOutcome::Conflict { revision: state.revision, current });
        }
        Ok(TxnOutcome::Committed { revision: state.apply(txn.writes) })
    }

    async fn watch(&self, key: Bytes, end: Bytes, start_revision: i64) -> Result<WatchStream, StoreError> {
        let mut state = self.state.lock();
        if start_revision <= state.compacted {
            return Err(StoreError::Compacted { compact_revision: state.compacted });
        }
        // As long as the store's whole history, which is in memory too: this store is for tests.
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut batch = WatchBatch { revision: state.revision, events: Vec::new() };
        let missed = state.history.iter().filter(|e| e.revision() >= start_revision && within(e.key(), &key, &end));
        batch.events.extend(missed.cloned());
        let _ = sender.send(Ok(batch));
        state.watchers.push(Watcher { key, end, sender });
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        let state = self.state.lock();
        for watcher in &state.watchers {
            let _ = watcher.sender.send(Ok(WatchBatch { revision: state.revision, events: Vec::new() }));
        }
        Ok(())
    }

    async fn grant_lease(&self, _ttl_seconds: i64) -> Result<i64, StoreError> {
        let mut state = self.state.lock();
        state.next_lease += 1;
        Ok(state.next_lease)
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let view = state.at(revision)?;
        let mut history: Vec<_> = view.into_values().map(StoreEvent::Put).collect();
        history.sort_by_key(StoreEvent::revision);
        history.extend(state.history.iter().filter(|e| e.revision() > revision).cloned());
        state.history = history;
        state.compacted = revision;
        Ok(())
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        Ok(self.state.lock().revision)
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        Ok(StoreStatus { db_size: 0, revision: self.state.lock().revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Guard;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[tokio::test]
    async fn a_guarded_write_conflicts_with_the_current_state() {
        let store = MemoryStore::default();
        let first = store.txn(Txn::create(bytes("/a"), bytes("1"), 0)).await.expect("txn");
        let TxnOutcome::Committed { revision } = first else { panic!("{first:?}") };
        let second = store.txn(Txn::create(bytes("/a"), bytes("2"), 0)).await.expect("txn");
        let TxnOutcome::Conflict { current, .. } = second else { panic!("{second:?}") };
        assert_eq!(current[0].as_ref().map(|kv| kv.mod_revision), Some(revision));
        let stale = Txn { guards: vec![Guard { key: bytes("/a"), mod_revision: revision + 5 }], writes: vec![] };
        assert!(matches!(store.txn(stale).await, Ok(TxnOutcome::Conflict { .. })));
    }

    #[tokio::test]
    async fn a_watch_replays_history_then_follows_and_old_reads_see_old_values() {
        let store = MemoryStore::default();
        store.txn(Txn::create(bytes("/a"), bytes("1"), 0)).await.expect("txn");
        let mut watch = store.watch(bytes("/"), bytes("0"), 2).await.expect("watch");
        store.txn(Txn::update(bytes("/a"), bytes("2"), 2, 0)).await.expect("txn");
        let first = watch.next().await.expect("batch").expect("no error");
        let second = watch.next().await.expect("batch").expect("no error");
        assert_eq!((first.events.len(), second.revision), (1, 3));
        let old = RangeRequest { key: bytes("/a"), revision: 2, ..RangeRequest::default() };
        assert_eq!(store.range(old.clone()).await.expect("range").kvs[0].value, bytes("1"));
        store.compact(3).await.expect("compact");
        assert_eq!(store.range(old).await.expect_err("compacted"), StoreError::Compacted { compact_revision: 3 });
    }
}
