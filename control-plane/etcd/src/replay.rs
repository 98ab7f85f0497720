//! Applies the entries of a log frame, which are effects and not requests, to the store: at start-up, and wherever a
//! frame comes that another member proposed. Pure but for loading a value that is written anew.
//! Caller: `engine::recover`.

use bytes::Bytes;

use crate::frame::{self, Entry, VALUE_HEADER};
use crate::mvcc::{Place, Store, Values, Writing};
use crate::span::Span;
use crate::txn;

/// An entry that an intact frame can't hold: offset in the file, and what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    pub offset: u64,
    pub what: String,
}

/// Applies a frame's payload, which lies at `base` of `file`.
pub fn replay(store: &mut Store, payload: &[u8], file: u16, base: u64, values: &dyn Values) -> Result<(), Malformed> {
    let mut at = 0;
    let mut writing: Option<Writing> = None;
    while at < payload.len() {
        let wrong = |what: String| Malformed { offset: base + at as u64, what };
        let (entry, next) = frame::entry(payload, at).ok_or_else(|| wrong("an entry is malformed".into()))?;
        let open = writing.get_or_insert_with(|| store.begin());
        match entry {
            Entry::Put { key, lease, value, value_at } => {
                let place = Place::new(file, base + value_at as u64);
                debug_assert_eq!(payload[value_at..].len().min(VALUE_HEADER), VALUE_HEADER);
                let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                store.put(open, &key, value, lease, place);
            }
            Entry::Touch { key, lease } => {
                let old = store.history(key).and_then(|h| h.at(i64::MAX)).copied();
                let old = old.ok_or_else(|| wrong("a key is written anew that does not exist".into()))?;
                let value = store.value(&old, values).map_err(|e| wrong(e.to_string()))?;
                store.put(open, &Bytes::copy_from_slice(key), value, lease, old.place);
            }
            Entry::Delete { key, end } => {
                let span = Span::new(Bytes::copy_from_slice(key), Bytes::copy_from_slice(end));
                for key in store.live_keys(&span) {
                    store.delete(open, &key);
                }
            }
            Entry::Commit => {
                if let Some(done) = writing.take() {
                    store.applied_index += 1;
                    store.finish(done);
                }
            }
            Entry::Grant { id, ttl } => {
                store.applied_index += 1;
                store.leases.grant(id, ttl, 0).map_err(|e| wrong(format!("lease {id:x}: {e}")))?;
            }
            Entry::Revoke { id } => {
                writing = None;
                store.applied_index += 1;
                txn::revoke(store, id).ok_or_else(|| wrong(format!("lease {id:x} ends but does not exist")))?;
            }
            Entry::Compact { revision } => {
                store.applied_index += 1;
                store.compact(revision).map_err(|e| wrong(format!("compaction to {revision}: {e}")))?;
            }
            Entry::Closed | Entry::Led { .. } => {}
        }
        at = next;
    }
    let durable = store.revision();
    store.recent.trim(durable);
    Ok(())
}
