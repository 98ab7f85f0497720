//! Leases: how long they live, what hangs on them, which end next. Pure: time is milliseconds of the caller's clock.
//! Callers: `mvcc` (attach, detach), `txn` (grant, revoke), `engine` (keep-alive, expiry).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::error::Error;

/// Longest time to live, in seconds: upstream's bound.
pub const MAX_TTL: i64 = 9_000_000_000;
/// Shortest time to live, in seconds: what upstream grants with its default election timeout.
pub const MIN_TTL: i64 = 2;

/// One lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// Granted time to live in seconds.
    pub ttl: i64,
    /// When it ends.
    pub deadline_ms: u64,
    pub keys: BTreeSet<Bytes>,
}

/// Every lease, by ID and by deadline.
#[derive(Debug, Default)]
pub struct Leases {
    by_id: BTreeMap<i64, Lease>,
    deadlines: BTreeSet<(u64, i64)>,
}

fn deadline(ttl: i64, now_ms: u64) -> u64 {
    now_ms.saturating_add((ttl.max(0) as u64).saturating_mul(1000))
}

impl Leases {
    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn ids(&self) -> impl Iterator<Item = i64> + '_ {
        self.by_id.keys().copied()
    }

    /// All leases, by ID.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    /// Grants a lease; returns the granted time to live.
    pub fn grant(&mut self, id: i64, ttl: i64, now_ms: u64) -> Result<i64, Error> {
        if ttl > MAX_TTL {
            return Err(Error::LeaseTtlTooLarge);
        }
        if self.by_id.contains_key(&id) {
            return Err(Error::LeaseExists);
        }
        let ttl = ttl.max(MIN_TTL);
        self.restore(id, Lease { ttl, deadline_ms: deadline(ttl, now_ms), keys: BTreeSet::new() });
        Ok(ttl)
    }

    /// Ends a lease and returns it with its keys, which the caller deletes.
    pub fn remove(&mut self, id: i64) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.deadlines.remove(&(lease.deadline_ms, id));
        Some(lease)
    }

    /// Puts a lease back as it was.
    pub fn restore(&mut self, id: i64, lease: Lease) {
        self.deadlines.insert((lease.deadline_ms, id));
        self.by_id.insert(id, lease);
    }

    /// Starts a lease's time anew; returns its time to live.
    pub fn renew(&mut self, id: i64, now_ms: u64) -> Result<i64, Error> {
        let lease = self.by_id.get_mut(&id).filter(|l| l.deadline_ms > now_ms).ok_or(Error::LeaseNotFound)?;
        self.deadlines.remove(&(lease.deadline_ms, id));
        lease.deadline_ms = deadline(lease.ttl, now_ms);
        self.deadlines.insert((lease.deadline_ms, id));
        Ok(lease.ttl)
    }

    /// Starts every lease's time anew: a restarted server does not know when clients last kept them alive.
    pub fn renew_all(&mut self, now_ms: u64) {
        let ids: Vec<i64> = self.ids().collect();
        for id in ids {
            if let Some(lease) = self.remove(id) {
                let deadline_ms = deadline(lease.ttl, now_ms);
                self.restore(id, Lease { deadline_ms, ..lease });
            }
        }
    }

    pub fn attach(&mut self, id: i64, key: Bytes) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key);
        }
    }

    pub fn detach(&mut self, id: i64, key: &Bytes) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// When the next lease ends.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Up to `limit` leases whose time is over.
    pub fn expired(&self, now_ms: u64, limit: usize) -> Vec<i64> {
        self.deadlines.iter().take_while(|(at, _)| *at <= now_ms).take(limit).map(|(_, id)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_unless_it_is_kept_alive() {
        let mut leases = Leases::default();
        assert_eq!(leases.grant(7, 1, 0), Ok(MIN_TTL), "too short a life is raised to the least");
        assert_eq!(leases.grant(7, 5, 0), Err(Error::LeaseExists));
        assert_eq!(leases.grant(8, MAX_TTL + 1, 0), Err(Error::LeaseTtlTooLarge));
        assert_eq!(leases.grant(8, 10, 0), Ok(10));
        assert_eq!(leases.next_deadline(), Some(2000));
        assert_eq!(leases.renew(7, 1500), Ok(2));
        assert!(leases.expired(2000, 10).is_empty());
        assert_eq!(leases.expired(3500, 10), [7]);
        assert_eq!(leases.renew(7, 3500), Err(Error::LeaseNotFound), "too late");
        leases.renew_all(20_000);
        assert_eq!(leases.next_deadline(), Some(22_000));
    }

    #[test]
    fn a_removed_lease_gives_its_keys() {
        let mut leases = Leases::default();
        leases.grant(1, 10, 0).unwrap();
        leases.attach(1, Bytes::from_static(b"a"));
        leases.attach(1, Bytes::from_static(b"b"));
        leases.detach(1, &Bytes::from_static(b"a"));
        assert_eq!(leases.remove(1).unwrap().keys.into_iter().collect::<Vec<_>>(), [Bytes::from_static(b"b")]);
        assert_eq!(leases.next_deadline(), None);
    }
}
