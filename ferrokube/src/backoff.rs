//! How long something that ended by itself is left alone before it is started again. Pure. Called by the supervisor, for
//! the daemon, and by the daemon, for its components.

use std::time::Duration;

/// The longest pause: who mends the cause shall not wait longer than it takes to notice.
const LONGEST: Duration = Duration::from_secs(60);
/// What lived this long had got over its start: the next end is a new story.
const WELL: Duration = Duration::from_secs(120);
/// The pause that is doubled.
const STEP: Duration = Duration::from_secs(1);

/// The ends of one thing, in a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    ends: u32,
}

impl Backoff {
    /// The pause after an end: none after the first, then a second, doubled each time.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= WELL {
            self.ends = 0;
        }
        let pause = match self.ends {
            0 => Duration::ZERO,
            n => STEP.saturating_mul(1 << (n - 1).min(16)).min(LONGEST),
        };
        self.ends = self.ends.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_good_life() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..10).map(|_| backoff.after(Duration::from_millis(5)).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.after(WELL), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO).as_secs(), 1);
    }
}
