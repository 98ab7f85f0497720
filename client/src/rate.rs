//! So many a second, and so many at once after a pause: what the kubelet's `eventRecordQPS` and `eventBurst` mean. Pure;
//! [`crate::events`] asks before each Event that it writes.

use std::time::Duration;

/// A bucket of tokens; times are counted from whenever the caller began.
#[derive(Debug, Clone)]
pub struct Rate {
    interval: Duration,
    /// How far ahead of its time a burst may be.
    ahead: Duration,
    next: Duration,
}

impl Rate {
    /// `None` without a limit: `per_second` 0.
    pub fn new(per_second: u32, burst: u32) -> Option<Rate> {
        let interval = Duration::from_secs(1).checked_div(per_second)?;
        let ahead = interval.saturating_mul(burst.max(1) - 1);
        Some(Rate { interval, ahead, next: Duration::ZERO })
    }

    /// Counts one more at `now`; how long it has to wait.
    pub fn take(&mut self, now: Duration) -> Duration {
        let next = self.next.max(now);
        self.next = next + self.interval;
        next.saturating_sub(self.ahead).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_rate() {
        let mut rate = Rate::new(50, 100).unwrap();
        let start = Duration::from_secs(7);
        assert!((0..100).all(|_| rate.take(start).is_zero()));
        assert_eq!(rate.take(start), Duration::from_millis(20));
        assert_eq!(rate.take(start), Duration::from_millis(40));
        assert!((0..100).all(|_| rate.take(start + Duration::from_secs(60)).is_zero()), "a pause fills it again");
        assert!(Rate::new(0, 100).is_none(), "0 is no limit");
    }
}
