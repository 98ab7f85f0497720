//! Whether an address is still this node's when another station answers for it. An address in doubt is silent; who says
//! whether it is ours is the API server, and when it says nothing it isn't. Pure: time is an argument.
//!
//! ```text
//!            claim                    ours: said again, others' claims are not asked about for a while
//!   ours ───────────► asked, silent ───────────────────────────────────────────────► ours
//!                        ▲      │ another's, or no answer
//!                 later  └──────┘ silent
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// After an answer no claim is asked about for so long: a station that claims for ever costs no more than this.
const PAUSE: Duration = Duration::from_secs(5);
/// The first wait after a question that was not answered as hoped, doubled up to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What the API server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ours,
    /// Another's, nobody's, or the server could not be asked.
    NotKnown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is ours: said at this time.
    Sure(Instant),
    /// With the wait after the question, should it come to that.
    Asking(Duration),
    /// To be asked again then.
    Waiting(Instant, Duration),
}

/// The addresses that somebody else has claimed while they were ours.
#[derive(Debug, Default)]
pub struct Doubts(BTreeMap<IpAddr, State>);

impl Doubts {
    /// Another station says that the address is its own. True: the API server is to be asked, and the address is silent.
    pub fn claimed(&mut self, addr: IpAddr, now: Instant) -> bool {
        let ask = match self.0.get(&addr) {
            None => true,
            Some(State::Sure(since)) => now.saturating_duration_since(*since) >= PAUSE,
            Some(State::Asking(_) | State::Waiting(..)) => false,
        };
        if ask {
            self.0.insert(addr, State::Asking(FIRST_RETRY));
        }
        ask
    }

    /// True: it is ours, and is to be said again.
    pub fn answered(&mut self, addr: IpAddr, answer: Answer, now: Instant) -> bool {
        let Some(State::Asking(wait)) = self.0.get(&addr).copied() else { return false };
        let next = match answer {
            Answer::Ours => State::Sure(now),
            Answer::NotKnown => State::Waiting(now + wait, (wait * 2).min(LAST_RETRY)),
        };
        self.0.insert(addr, next);
        answer == Answer::Ours
    }

    /// Addresses whose question is to be asked again now: they are asked.
    pub fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut due = Vec::new();
        for (addr, state) in &mut self.0 {
            if let State::Waiting(until, wait) = *state
                && until <= now
            {
                *state = State::Asking(wait);
                due.push(*addr);
            }
        }
        due
    }

    /// When the next question is to be asked again.
    pub fn next(&self) -> Option<Instant> {
        let waiting =
            self.0.values().filter_map(|state| if let State::Waiting(at, _) = state { Some(*at) } else { None });
        waiting.min()
    }

    /// Whether the address is not to be answered for.
    pub fn is_silent(&self, addr: IpAddr) -> bool {
        matches!(self.0.get(&addr), Some(State::Asking(_) | State::Waiting(..)))
    }

    /// Forgets addresses that are not this node's any more: should they come again, they begin anew.
    pub fn keep(&mut self, ours: impl Fn(&IpAddr) -> bool) {
        self.0.retain(|addr, _| ours(addr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip() -> IpAddr {
        "192.0.2.240".parse().unwrap()
    }

    #[test]
    fn who_is_sure_says_it_again_and_is_not_asked_for_every_claim() {
        let (mut doubts, start) = (Doubts::default(), Instant::now());
        assert!(!doubts.is_silent(ip()));
        assert!(doubts.claimed(ip(), start) && doubts.is_silent(ip()), "silent while it asks");
        assert!(!doubts.claimed(ip(), start), "once");
        assert!(doubts.answered(ip(), Answer::Ours, start) && !doubts.is_silent(ip()));
        assert!(!doubts.answered(ip(), Answer::Ours, start), "an answer to nothing");
        for later in [1, 4999] {
            assert!(!doubts.claimed(ip(), start + Duration::from_millis(later)) && !doubts.is_silent(ip()));
        }
        assert!(doubts.claimed(ip(), start + PAUSE));
        assert_eq!(doubts.next(), None, "no clock runs while all is well");
    }

    #[test]
    fn who_is_cut_off_stays_silent_and_asks_again_and_again() {
        let (mut doubts, mut now) = (Doubts::default(), Instant::now());
        assert!(doubts.claimed(ip(), now));
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert!(!doubts.answered(ip(), Answer::NotKnown, now) && doubts.is_silent(ip()));
            assert_eq!(doubts.next(), Some(now + Duration::from_secs(wait)));
            assert!(!doubts.claimed(ip(), now), "it is in doubt already");
            assert!(doubts.due(now).is_empty());
            now += Duration::from_secs(wait);
            assert_eq!(doubts.due(now), [ip()]);
            assert!(doubts.due(now).is_empty(), "it is asked");
        }
        assert!(doubts.answered(ip(), Answer::Ours, now) && !doubts.is_silent(ip()), "it was ours all along");
        // Another's, as the informer comes to say, too: and later ours again.
        assert!(doubts.claimed(ip(), now + PAUSE));
        doubts.answered(ip(), Answer::NotKnown, now + PAUSE);
        doubts.keep(|_| false);
        assert!(!doubts.is_silent(ip()) && doubts.next().is_none());
    }
}
