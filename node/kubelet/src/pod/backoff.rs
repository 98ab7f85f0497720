//! Growing delays: for restarts of a container (10 s to 5 min) and for pulls of an image (the same). An entry that was
//! left alone for twice the longest delay starts over. Pure.

use jiff::{SignedDuration, Timestamp};

/// Upstream's first delay of a crash loop and of a failed pull.
pub const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// Upstream's longest delay.
pub const LONGEST: SignedDuration = SignedDuration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    delay: SignedDuration,
    updated: Option<Timestamp>,
}

impl Backoff {
    /// Until when a try after something that ended at `since` has to wait.
    pub fn until(&self, since: Timestamp, longest: SignedDuration) -> Option<Timestamp> {
        let updated = self.updated?;
        if since.duration_since(updated) > longest * 2 {
            return None;
        }
        Some(since.saturating_add(self.delay).unwrap_or(since))
    }

    /// Counts one more try at `now`.
    pub fn next(&mut self, now: Timestamp, longest: SignedDuration) {
        let fresh = self.updated.is_none_or(|u| now.duration_since(u) > longest * 2);
        self.delay = if fresh { INITIAL.min(longest) } else { (self.delay * 2).min(longest) };
        self.updated = Some(now);
    }

    pub fn delay(&self) -> SignedDuration {
        self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn delays_double_to_the_longest_and_start_over_after_a_quiet_time() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.until(at(0), LONGEST), None, "the first restart is at once");
        let mut delays = Vec::new();
        for i in 0..7 {
            backoff.next(at(i), LONGEST);
            delays.push(backoff.delay().as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.until(at(10), LONGEST), Some(at(310)));
        assert_eq!(backoff.until(at(10 + 601), LONGEST), None);
        backoff.next(at(700), LONGEST);
        assert_eq!(backoff.delay().as_secs(), 10);
    }
}
