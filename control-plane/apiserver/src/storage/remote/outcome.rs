//! What became of a transaction that was sent twice, because nobody knows what became of it the first time: the server
//! died, or its leader changed, before it answered. Pure. Called by [`super::RemoteStore`].
//!
//! Sending it again is safe. Its guards name the revisions that it wants to replace, and revisions never come back: of
//! both, one at most is carried out. If it was the first, the second fails, and what its guards look at is as it wanted it.

use super::super::{KeyValue, Txn, TxnOutcome, Write};

/// The outcome of both: `second` is what the later one was answered.
pub fn settle(txn: &Txn, second: TxnOutcome) -> TxnOutcome {
    let TxnOutcome::Conflict { revision, current } = &second else { return second };
    match carried_out(txn, current) {
        Some(at) => TxnOutcome::Committed { revision: at.unwrap_or(*revision) },
        None => second,
    }
}

/// Whether everything that it writes under guard is there, and at which revision, as far as a key that was written says
/// it: one that was deleted says nothing.
fn carried_out(txn: &Txn, current: &[Option<KeyValue>]) -> Option<Option<i64>> {
    let (mut seen, mut at) = (false, None);
    for write in &txn.writes {
        let key = match write {
            Write::Put { key, .. } | Write::Delete { key } => key,
        };
        let Some(index) = txn.guards.iter().position(|guard| guard.key == *key) else { continue };
        let (before, now) = (txn.guards[index].mod_revision, current.get(index)?.as_ref());
        match (write, now) {
            (Write::Put { value, lease, .. }, Some(kv))
                if kv.value == *value && kv.lease == *lease && kv.mod_revision > before =>
            {
                // All that one transaction writes has one revision.
                if at.is_some_and(|at| at != kv.mod_revision) {
                    return None;
                }
                at = Some(kv.mod_revision);
            }
            (Write::Delete { .. }, None) if before != 0 => {}
            _ => return None,
        }
        seen = true;
    }
    seen.then_some(at)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn kv(value: &'static str, mod_revision: i64) -> Option<KeyValue> {
        let (key, value) = (Bytes::from_static(b"a"), Bytes::from_static(value.as_bytes()));
        Some(KeyValue { key, value, create_revision: 3, mod_revision, lease: 0 })
    }

    fn settled(txn: &Txn, current: Vec<Option<KeyValue>>) -> Option<i64> {
        match settle(txn, TxnOutcome::Conflict { revision: 20, current }) {
            TxnOutcome::Committed { revision } => Some(revision),
            TxnOutcome::Conflict { .. } => None,
        }
    }

    /// A create whose server died before it answered came back as "already exists".
    #[test]
    fn a_write_that_was_carried_out_unheard_is_no_conflict() {
        let (key, new) = (Bytes::from_static(b"a"), Bytes::from_static(b"new"));
        let create = Txn::create(key.clone(), new.clone(), 0);
        assert_eq!(settled(&create, vec![kv("new", 9)]), Some(9));
        assert_eq!(settled(&create, vec![kv("another's", 9)]), None, "somebody else made it");
        let update = Txn::update(key.clone(), new, 7, 0);
        assert_eq!(settled(&update, vec![kv("new", 9)]), Some(9));
        assert_eq!(settled(&update, vec![kv("new", 7)]), None, "it stands as before: another guard has failed");
        assert_eq!(settled(&update, vec![None]), None, "deleted meanwhile");
        let delete = Txn::delete(key.clone(), 7);
        assert_eq!(settled(&delete, vec![None]), Some(20), "gone, whoever it was");
        assert_eq!(settled(&delete, vec![kv("new", 9)]), None);
        let gone = Txn::delete(key, 0);
        assert_eq!(settled(&gone, vec![None]), None, "there was nothing to delete");
    }

    #[test]
    fn all_that_is_written_must_be_there_at_one_revision() {
        let mut both = Txn::update(Bytes::from_static(b"a"), Bytes::from_static(b"new"), 7, 0);
        let other = Txn::create(Bytes::from_static(b"b"), Bytes::from_static(b"new"), 0);
        both.guards.extend(other.guards);
        both.writes.extend(other.writes);
        assert_eq!(settled(&both, vec![kv("new", 9), kv("new", 9)]), Some(9));
        assert_eq!(settled(&both, vec![kv("new", 9), kv("new", 8)]), None);
        assert_eq!(settled(&both, vec![kv("new", 9), None]), None);
        let unguarded = Txn { guards: vec![], writes: both.writes };
        assert_eq!(settled(&unguarded, vec![]), None);
    }
}
