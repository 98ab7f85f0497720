//! When this node gives its next sign, and whether it stood still meanwhile: a process that was stopped, or a machine that was
//! suspended, may have been replaced by others. An API server that is away is no stall: whoever hears no signs elects nobody.
//! Pure: time is an argument, of the clock that goes on while the machine is suspended. Called by the daemon.
//!
//! ```text
//!              something to announce               due: later than it can be of itself? it stood still
//!   resting ───────────────────────────► waiting ───────────────────────────────────────────────────► giving
//!      ▲              nothing any more      │  ▲        given, or failed: the same                        │
//!      └────────────────────────────────────┘  └──────────────────────────────────────────────────────────┘
//! ```

use std::time::Duration;

use facts::announcing::SIGN_EVERY;

/// What is late by so much was kept from running.
const LATE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Resting,
    /// The next sign is due then.
    Waiting(Duration),
    /// A sign is being given since then.
    Giving(Duration),
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// A sign is to be given, and [`Pulse::given`] called when that is done or has failed.
    pub sign: bool,
    /// This process stood still: others may have its addresses.
    pub stalled: bool,
}

/// The signs of this node.
#[derive(Debug)]
pub struct Pulse {
    state: State,
    /// How long a sign may take: then it has failed.
    patience: Duration,
}

impl Pulse {
    pub fn new(patience: Duration) -> Pulse {
        Pulse { state: State::default(), patience }
    }

    /// Looks at what is due, as long as there is anything to announce in the cluster.
    pub fn beat(&mut self, wanted: bool, now: Duration) -> Beat {
        let due = match self.state {
            State::Giving(_) => return Beat::default(),
            _ if !wanted => {
                self.state = State::Resting;
                return Beat::default();
            }
            State::Resting => now,
            State::Waiting(due) => due,
        };
        self.state = if due <= now { State::Giving(now) } else { State::Waiting(due) };
        Beat { sign: due <= now, stalled: now.saturating_sub(due) > LATE }
    }

    /// The sign is given, or has failed. True: this process stood still meanwhile.
    pub fn given(&mut self, now: Duration) -> bool {
        let State::Giving(since) = self.state else { return false };
        self.state = State::Waiting((since + SIGN_EVERY).max(now));
        now.saturating_sub(since) > self.patience + LATE
    }

    /// How long until the next sign is due.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Waiting(due) => Some(due.saturating_sub(now)),
            State::Resting | State::Giving(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGN: Beat = Beat { sign: true, stalled: false };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn started() -> Pulse {
        let mut pulse = Pulse::new(Duration::from_secs(3));
        assert_eq!(pulse.beat(true, at(0)), SIGN);
        assert!(!pulse.given(at(0)));
        pulse
    }

    #[test]
    fn a_sign_is_given_every_two_seconds_as_long_as_there_is_anything_to_announce() {
        let mut pulse = Pulse::new(Duration::from_secs(3));
        assert_eq!((pulse.beat(false, at(0)), pulse.next(at(0))), (Beat::default(), None));
        for second in [0, 2, 4] {
            assert_eq!(pulse.beat(true, at(second)), SIGN);
            assert_eq!(
                (pulse.beat(true, at(second)), pulse.next(at(second))),
                (Beat::default(), None),
                "it is on its way"
            );
            assert!(!pulse.given(at(second)));
            assert_eq!(pulse.next(at(second)), Some(SIGN_EVERY));
        }
        assert_eq!(pulse.beat(false, at(5)), Beat::default());
        assert_eq!(pulse.beat(true, at(60)), SIGN, "nothing was due meanwhile");
    }

    #[test]
    fn an_api_server_that_is_away_is_no_stall() {
        // Each sign waits for as long as it may, and fails.
        let (mut pulse, mut now) = (started(), at(2));
        for _ in 0..100 {
            assert_eq!(pulse.beat(true, now), SIGN, "{now:?}");
            now += Duration::from_secs(3);
            assert!(!pulse.given(now), "{now:?}");
            assert_eq!(pulse.next(now), Some(Duration::ZERO), "it was due long ago, and counts as due now");
            // The loop comes to it a little later.
            now += Duration::from_secs(4);
        }
    }

    #[test]
    fn who_stood_still_is_told_so_once_wherever_that_was() {
        let mut pulse = started();
        assert_eq!(pulse.beat(true, at(2 + 6)), Beat { sign: true, stalled: true });
        assert!(!pulse.given(at(8)));
        assert_eq!(pulse.beat(true, at(10)), SIGN);
        // While a sign was on its way: it fails at the first look at the clock.
        assert!(pulse.given(at(10 + 9)));
        assert_eq!(pulse.beat(true, at(19)), SIGN);
        assert!(!pulse.given(at(20)) && !pulse.given(at(60)), "an answer to nothing");
    }
}
