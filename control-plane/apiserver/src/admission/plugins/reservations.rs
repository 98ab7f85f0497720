//! One lock a namespace for those who reserve room in its quotas: they take turns here instead of losing each other's
//! transactions. Between servers the guards of the transactions decide. ResourceQuota has them. I/O: waits for locks.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Lock = tokio::sync::Mutex<()>;
/// Held until the room is reserved or given up.
pub(super) type Turn = OwnedMutexGuard<()>;

/// Namespaces whose lock somebody holds or waits for, and a few that nobody does any more.
#[derive(Default)]
pub(super) struct Reservations(Mutex<HashMap<String, Weak<Lock>>>);

impl Reservations {
    /// Waits for its turn.
    pub(super) async fn lock(&self, namespace: &str) -> Turn {
        let lock = self.of(namespace);
        lock.lock_owned().await
    }

    fn of(&self, namespace: &str) -> Arc<Lock> {
        let mut locks = self.0.lock();
        if let Some(lock) = locks.get(namespace).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(Lock::default());
        locks.insert(namespace.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn namespaces_do_not_wait_for_each_other() {
        let reservations = Reservations::default();
        let held = reservations.lock("a").await;
        let _other = reservations.lock("b").await;
        assert!(reservations.of("a").try_lock().is_err());
        drop(held);
        assert!(reservations.of("a").try_lock().is_ok());
        let _again = reservations.lock("c").await;
        assert_eq!(reservations.0.lock().len(), 2);
    }
}
