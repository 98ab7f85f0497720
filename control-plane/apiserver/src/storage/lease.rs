//! Leases for objects that expire: one lease is shared by many keys, so that a burst of events costs a few leases.
//! I/O: waits on tokio's channels and clock.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Store, StoreError};

/// A lease is handed out for this long; its keys may live that much longer than asked for.
const REUSE: Duration = Duration::from_secs(60);
/// Keys per lease: expiry deletes all of them in one transaction of the store.
const KEYS: usize = 1_000;

struct Current {
    id: i64,
    ttl_seconds: i64,
    since: Instant,
    keys: usize,
}

/// Hands out leases.
#[derive(Default)]
pub struct Leases(Mutex<Vec<Current>>);

impl Leases {
    /// A lease under which a key lives at least `ttl_seconds`.
    pub async fn get(&self, store: &dyn Store, ttl_seconds: i64) -> Result<i64, StoreError> {
        {
            let mut current = self.0.lock();
            current.retain(|lease| lease.since.elapsed() < REUSE && lease.keys < KEYS);
            if let Some(lease) = current.iter_mut().find(|lease| lease.ttl_seconds == ttl_seconds) {
                lease.keys += 1;
                return Ok(lease.id);
            }
        }
        let id = store.grant_lease(ttl_seconds + REUSE.as_secs() as i64).await?;
        self.0.lock().push(Current { id, ttl_seconds, since: Instant::now(), keys: 1 });
        Ok(id)
    }
}
