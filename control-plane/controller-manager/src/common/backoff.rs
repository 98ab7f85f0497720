//! Waiting longer each time something is tried again, forgotten when it has been quiet for long. Pure: time is an
//! argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;

/// Entries that make a sweep of quiet ones worth it.
const SWEEP_AT: usize = 1000;

#[derive(Debug)]
pub struct Backoff<K> {
    first: Duration,
    most: Duration,
    known: HashMap<K, (Duration, Timestamp)>,
}

impl<K: Eq + Hash> Backoff<K> {
    pub fn new(first: Duration, most: Duration) -> Backoff<K> {
        Backoff { first, most, known: HashMap::new() }
    }

    /// How long to wait still; zero when it may be tried.
    pub fn left(&self, key: &K, now: Timestamp) -> Duration {
        let Some((delay, last)) = self.known.get(key) else { return Duration::ZERO };
        delay.saturating_sub(since(*last, now))
    }

    /// It is tried now: the next wait is twice as long.
    pub fn tried(&mut self, key: K, now: Timestamp) {
        let quiet = self.most * 2;
        if self.known.len() >= SWEEP_AT {
            self.known.retain(|_, (_, last)| since(*last, now) < quiet);
        }
        let next = match self.known.get(&key) {
            Some((delay, last)) if since(*last, now) < quiet => (*delay * 2).min(self.most),
            _ => self.first,
        };
        self.known.insert(key, (next, now));
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis((now.as_millisecond() - then.as_millisecond()).max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::model::at;

    #[test]
    fn waits_double_up_to_the_most_and_start_over_after_quiet() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!(backoff.left(&"a", at(0)), Duration::ZERO);
        for (when, wait) in [(0, 1), (1, 2), (3, 3), (6, 3), (100, 1)] {
            backoff.tried("a", at(when));
            assert_eq!(backoff.left(&"a", at(when)).as_secs(), wait);
        }
    }
}
