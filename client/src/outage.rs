//! What is tried again and again is told once when it fails, and once when it works again: a line for each try would
//! bury the log, and none would make a missing right look like a quiet cluster. Pure; asked by [`crate::informer`] and
//! [`crate::lease`].

use std::time::{Duration, Instant};

/// Failures in a row before they are told: one cut connection that the next try mends is everyday.
const TOLD_AT: u32 = 2;

/// Failures in a row, and since when.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    failures: u32,
    since: Option<Instant>,
}

impl Outage {
    /// One more failure. True for the one to be told.
    pub fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
        self.failures == TOLD_AT
    }

    /// Whether it was told that it fails, and not yet that it works.
    pub fn is_told(&self) -> bool {
        self.failures >= TOLD_AT
    }

    /// It works. How long it did not, if that was told.
    pub fn over(&mut self, now: Instant) -> Option<Duration> {
        let outage = std::mem::take(self);
        if outage.is_told() { outage.since.map(|since| now.saturating_duration_since(since)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_its_end_once() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut outage = Outage::default();
        assert!(!outage.failed(start), "once is everyday");
        assert_eq!(outage.over(start), None);
        let told: Vec<bool> = (0..4).map(|n| outage.failed(start + second * n)).collect();
        assert_eq!(told, [false, true, false, false]);
        assert_eq!(outage.over(start + second * 9), Some(second * 9));
        assert_eq!(outage.over(start + second * 10), None);
        assert!(!outage.failed(start + second * 11), "and begins anew");
    }
}
