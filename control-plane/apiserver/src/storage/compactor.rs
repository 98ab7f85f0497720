//! Forgets old history of the store every few minutes, or it would grow without bound. I/O: reads, writes and compacts
//! the store, waits on the clock.
//!
//! Servers that share a store agree by one key of upstream's, so that only one of them compacts and any mixture of
//! ours and upstream's works: whoever replaces the key, which it must have seen last, compacts to the revision that was
//! newest at its previous turn. So history is kept for one interval at least and two at most.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{KeyValue, Store, StoreError, Txn, TxnOutcome};

/// The key by which servers agree; its value is the revision compacted to.
const KEY: &[u8] = b"compact_rev_key";

/// What one server knows of the compaction of its store.
#[derive(Debug, Default)]
struct Turn {
    /// Where the key was seen last; 0: nowhere.
    key: i64,
    /// The newest revision at the previous turn; 0 before the first.
    revision: i64,
}

impl Turn {
    /// One turn; the revision compacted to, by this server or, as far as it tells, by another.
    async fn take(&mut self, store: &dyn Store) -> Result<Option<i64>, StoreError> {
        let (key, target) = (Bytes::from_static(KEY), self.revision);
        let txn = Txn::update(key, Bytes::from(target.to_string()), self.key, 0);
        match store.txn(txn).await? {
            TxnOutcome::Conflict { revision, current } => {
                let other = current.into_iter().next().flatten();
                *self = Turn { key: other.as_ref().map_or(0, |kv| kv.mod_revision), revision };
                Ok(other.as_ref().and_then(compacted_to))
            }
            TxnOutcome::Committed { revision } => {
                *self = Turn { key: revision, revision };
                if target == 0 {
                    return Ok(None);
                }
                match store.compact(target).await {
                    // Someone has gone further by hand.
                    Ok(()) | Err(StoreError::Compacted { .. }) => Ok(Some(target)),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

fn compacted_to(kv: &KeyValue) -> Option<i64> {
    std::str::from_utf8(&kv.value).ok()?.parse().ok().filter(|revision| *revision > 0)
}

/// Compacts every `interval` until shutdown; `compacted` holds the newest revision known to be compacted to. A zero
/// interval turns it off.
pub async fn run(store: &dyn Store, interval: Duration, compacted: &AtomicI64, shutdown: CancellationToken) {
    if interval.is_zero() {
        return;
    }
    let mut turn = Turn::default();
    // The first turn is now: it only learns, and so a server must live for one interval, not two, to forget anything.
    loop {
        let outcome = turn.take(store).await;
        // The caches do not watch the key: told of the new revision now, the next consistent read need not ask.
        let _ = store.request_progress().await;
        match outcome {
            Ok(Some(revision)) => {
                compacted.fetch_max(revision, Ordering::AcqRel);
                tracing::debug!(revision, "history is compacted");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "history could not be compacted; trying again at the next turn"),
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RangeRequest;
    use super::super::memory::MemoryStore;
    use super::*;

    async fn write(store: &MemoryStore, value: &'static str) -> i64 {
        let key = Bytes::from_static(b"/registry/pods/a");
        let (_, now) = store.get(key.clone()).await.expect("get");
        let guard = now.map_or(0, |kv| kv.mod_revision);
        match store.txn(Txn::update(key, Bytes::from_static(value.as_bytes()), guard, 0)).await {
            Ok(TxnOutcome::Committed { revision }) => revision,
            other => panic!("{other:?}"),
        }
    }

    async fn read_at(store: &MemoryStore, revision: i64) -> Result<Bytes, StoreError> {
        let key = Bytes::from_static(b"/registry/pods/a");
        let answer = store.range(RangeRequest { key, revision, ..RangeRequest::default() }).await?;
        Ok(answer.kvs.first().map(|kv| kv.value.clone()).unwrap_or_default())
    }

    #[tokio::test]
    async fn history_is_kept_for_one_turn_and_then_forgotten() {
        let store = MemoryStore::default();
        let first = write(&store, "1").await;
        let mut turn = Turn::default();
        assert_eq!(turn.take(&store).await, Ok(None));
        let second = write(&store, "2").await;
        let compacted = turn.take(&store).await.expect("compacts").expect("revision");
        assert!(first < compacted && compacted < second);
        assert!(matches!(read_at(&store, first).await, Err(StoreError::Compacted { .. })));
        assert_eq!(read_at(&store, second).await.expect("kept"), "2");
        let (_, key) = store.get(Bytes::from_static(KEY)).await.expect("get");
        assert_eq!(key.expect("key").value, compacted.to_string());
    }

    #[tokio::test]
    async fn of_two_servers_one_compacts_and_the_other_hears_of_it() {
        let store = MemoryStore::default();
        let (mut one, mut other) = (Turn::default(), Turn::default());
        assert_eq!(one.take(&store).await, Ok(None));
        assert_eq!(other.take(&store).await, Ok(None));
        write(&store, "1").await;
        let compacted = one.take(&store).await.expect("one").expect("compacted");
        let last = write(&store, "2").await;
        // The other must not use what it knows: it learns that one was here, and compacts nothing.
        assert_eq!(other.take(&store).await, Ok(Some(compacted)));
        assert_eq!(read_at(&store, last).await.expect("kept"), "2");
        assert!(read_at(&store, compacted).await.is_ok());
        // One ends: the other takes over.
        assert!(other.take(&store).await.expect("other").is_some_and(|revision| revision > compacted));
    }
}
