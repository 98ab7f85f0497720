//! Telling of what is refused, once of each kind: whoever looks for the reason finds it in the log, and nobody fills the
//! log by being refused. I/O: reads the clock. Callers: `http` of handshakes, the API server of credentials.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Kinds that are known at a time: more than there are, unless somebody makes them up.
const KINDS: usize = 32;
/// Letters of a kind that count.
const LETTERS: usize = 120;
/// How long nothing more is said of a kind.
const SILENCE: Duration = Duration::from_secs(3600);

/// What was told lately.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<String, Instant>>);

impl Refusals {
    /// Whether this reason is to be told: nothing like it was for an hour.
    pub fn is_news(&self, why: &str) -> bool {
        self.is_news_at(why, Instant::now())
    }

    fn is_news_at(&self, why: &str, now: Instant) -> bool {
        let kind = kind(why);
        let mut told = self.0.lock();
        if told.get(&kind).is_some_and(|at| now.duration_since(*at) < SILENCE) {
            return false;
        }
        if told.len() >= KINDS {
            told.retain(|_, at| now.duration_since(*at) < SILENCE);
        }
        if told.len() >= KINDS {
            return false;
        }
        told.insert(kind, now);
        true
    }
}

/// A reason without what differs from one client to the next: times, sizes, numbers.
fn kind(why: &str) -> String {
    why.chars().filter(|c| !c.is_ascii_digit()).take(LETTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_an_hour_and_kinds_are_bounded() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(refusals.is_news_at("expired 5 seconds ago", at(0)));
        assert!(!refusals.is_news_at("expired 65 seconds ago", at(60)));
        assert!(refusals.is_news_at("not valid yet", at(60)));
        assert!(refusals.is_news_at("expired 7200 seconds ago", at(3600)));
        let made_up = |n: u8| "x".repeat(usize::from(n) + 1);
        let told = (0..100).filter(|n| refusals.is_news_at(&made_up(*n), at(3700))).count();
        assert_eq!(told, KINDS - 1, "the kind that was told an hour ago gave way");
        assert!(refusals.is_news_at("something else", at(8000)), "and later there is room again");
    }
}
