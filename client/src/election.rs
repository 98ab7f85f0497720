//! Leader election as a pure step: what a candidate does with the record of a `Lease` that it has just read. The loop
//! with the requests is [`crate::lease`].
//!
//! Two candidates never lead at once, however far their clocks are apart, because no candidate compares a time of the
//! record with a time of its own. As in upstream's client-go, each remembers the record and when *it* saw the record
//! change, by its own monotonic clock; `renewTime` is only a text that differs with every renewal:
//!
//! ```text
//!   leader A    sent          A gives up: sent + renew_deadline
//!                |                 |
//!      ----------+---+-------------+-------------> time
//!                    |                    |
//!   candidate B   written, later seen     B takes it: seen + lease_duration
//! ```
//!
//! A counts from when it *sent* the renewal, B from when it had *read* it, and a write comes between: so B's term begins
//! later than A's ends by at least `lease_duration - renew_deadline`, which is what A's work has to stop in. That both
//! clocks run at about the same pace is all that is assumed. A request that hangs changes nothing of it: A gives up
//! without its answer, and whenever the server still carries it out, the others count from there.
//!
//! Who deletes the Lease by hand gives this up for candidates that have not seen it: to them nobody ever led.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// The times of an election; equal for all candidates, or at least `lease_duration` of each is longer than
/// `renew_deadline` of every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait after the last renewal that they saw: `--leader-elect-lease-duration`.
    pub lease_duration: Duration,
    /// How long a leader goes on after its last renewal: `--leader-elect-renew-deadline`.
    pub renew_deadline: Duration,
    /// Between two looks: `--leader-elect-retry-period`.
    pub retry_period: Duration,
}

impl Default for Timing {
    /// Upstream's defaults.
    fn default() -> Timing {
        Timing {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// What a candidate wants after a look at the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Write [`Election::record`], guarded by the version that was read: the lease is ours, free, or has run out.
    Hold,
    /// Another candidate's term has not run out: look again later.
    Wait,
    /// We led, and the record names another: stop.
    Lost,
}

/// One candidate's view of one lease.
#[derive(Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    observed: Option<Observed>,
    /// When the last renewal that the server confirmed was sent; None while we don't lead.
    renewed: Option<Instant>,
}

#[derive(Debug)]
struct Observed {
    record: LeaseSpec,
    /// When we saw that it is another than before.
    at: Instant,
}

impl Election {
    /// `identity` is unique among the candidates, over restarts too.
    pub fn new(identity: &str, timing: Timing) -> Election {
        Election { identity: identity.to_owned(), timing, observed: None, renewed: None }
    }

    /// Decides on the record as it was read just before `now`; None when there is no lease.
    pub fn step(&mut self, record: Option<&LeaseSpec>, now: Instant) -> Wish {
        if let Some(record) = record.filter(|r| self.observed.as_ref().is_none_or(|o| o.record != **r)) {
            self.observed = Some(Observed { record: record.clone(), at: now });
        }
        // A lease that was deleted still has the term that we saw.
        let Some(observed) = &self.observed else { return Wish::Hold };
        let holder = holder(&observed.record);
        if holder.is_empty() || holder == self.identity {
            return Wish::Hold;
        }
        if record.is_some() && self.renewed.is_some() {
            return Wish::Lost;
        }
        if now < observed.at + self.term(&observed.record) { Wish::Wait } else { Wish::Hold }
    }

    /// The server confirmed our `record`, in answer to a request sent at `sent`.
    pub fn held(&mut self, record: LeaseSpec, sent: Instant) {
        self.observed = Some(Observed { record, at: sent });
        self.renewed = Some(sent);
    }

    /// When a leader has to stop unless it renews before; None while we don't lead.
    pub fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|sent| sent + self.timing.renew_deadline)
    }

    /// Leads no more; what was observed stays.
    pub(crate) fn resign(&mut self) {
        self.renewed = None;
    }

    /// The record to write over `seen`. `wall` is for people to read, and never repeats or goes back within a term: a
    /// server drops a write that changes nothing, and others would see no renewal.
    pub fn record(&self, seen: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let ours = seen.is_some_and(|s| holder(s) == self.identity);
        let mut record = seen.cloned().unwrap_or_default();
        let mut time = wall;
        if ours {
            let last = record.renew_time.as_ref().and_then(|t| t.0.checked_add(SignedDuration::from_micros(1)).ok());
            time = last.map_or(wall, |next| wall.max(next));
        } else {
            let before = record.lease_transitions;
            record.lease_transitions = Some(before.unwrap_or(0).saturating_add(i32::from(seen.is_some())));
            record.acquire_time = None;
        }
        record.holder_identity = Some(self.identity.clone());
        record.lease_duration_seconds = Some(whole_seconds(self.timing.lease_duration));
        record.acquire_time.get_or_insert(MicroTime(time));
        record.renew_time = Some(MicroTime(time));
        record
    }

    /// The record that gives the lease up, so that the next leader need not wait; None when it isn't ours.
    pub fn release(&self, seen: &LeaseSpec, wall: Timestamp) -> Option<LeaseSpec> {
        (holder(seen) == self.identity).then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(MicroTime(wall)),
            renew_time: Some(MicroTime(wall)),
            ..seen.clone()
        })
    }

    /// How long a record holds after it was seen: as its holder says, whose deadline goes by it.
    fn term(&self, record: &LeaseSpec) -> Duration {
        let said = record.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        said.map_or(self.timing.lease_duration, Duration::from_secs)
    }
}

fn holder(record: &LeaseSpec) -> &str {
    record.holder_identity.as_deref().unwrap_or_default()
}

/// Rounded up: others must not wait shorter than we mean.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    fn candidate(identity: &str) -> Election {
        Election::new(identity, Timing::default())
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_term_is_counted_from_when_the_record_was_seen_whatever_its_holder_takes_for_the_time() {
        let start = Instant::now();
        for skew in [-HOUR, 0, HOUR] {
            let (a, mut b) = (candidate("a"), candidate("b"));
            let first = a.record(None, wall(skew));
            assert_eq!(b.step(Some(&first), start), Wish::Wait, "skew {skew}");
            assert_eq!(b.step(Some(&first), after(start, 14)), Wish::Wait);
            let second = a.record(Some(&first), wall(skew));
            assert_eq!(b.step(Some(&second), after(start, 15)), Wish::Wait, "it was renewed");
            assert_eq!(b.step(Some(&second), after(start, 29)), Wish::Wait);
            assert_eq!(b.step(None, after(start, 29)), Wish::Wait, "a deleted lease leaves its term");
            assert_eq!(b.step(Some(&second), after(start, 30)), Wish::Hold);
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_renews_nevertheless() {
        let a = candidate("a");
        let first = a.record(None, wall(0));
        let second = a.record(Some(&first), wall(0));
        let third = a.record(Some(&second), wall(-HOUR));
        assert!(first != second && second != third && first.renew_time < second.renew_time);
        assert!(second.renew_time < third.renew_time);
        assert_eq!(third.acquire_time, first.acquire_time);
        assert_eq!(third.lease_transitions, Some(0));
    }

    #[test]
    fn a_leader_that_sees_another_in_its_place_has_lost() {
        let start = Instant::now();
        let mut a = candidate("a");
        assert_eq!(a.step(None, start), Wish::Hold);
        let mine = a.record(None, wall(0));
        a.held(mine.clone(), start);
        assert_eq!(a.deadline(), Some(after(start, 10)));
        assert_eq!(a.step(Some(&mine), after(start, 2)), Wish::Hold);
        assert_eq!(a.step(None, after(start, 3)), Wish::Hold, "deleted under us: made again");
        let other = candidate("b").record(Some(&mine), wall(1));
        assert_eq!(other.lease_transitions, Some(1));
        assert_eq!(a.step(Some(&other), after(start, 4)), Wish::Lost);
        a.resign();
        assert_eq!(a.step(Some(&other), after(start, 5)), Wish::Wait, "it may try again");
    }

    #[test]
    fn what_was_given_up_is_free_at_once() {
        let (start, a, mut b) = (Instant::now(), candidate("a"), candidate("b"));
        let held = a.record(None, wall(0));
        assert!(b.release(&held, wall(1)).is_none(), "only by its holder");
        assert_eq!(b.step(Some(&held), start), Wish::Wait);
        let free = a.release(&held, wall(1)).expect("ours");
        assert_eq!(b.step(Some(&free), start), Wish::Hold);
    }

    #[test]
    fn the_record_says_how_long_it_holds() {
        let start = Instant::now();
        let long = Timing { lease_duration: Duration::from_millis(59_001), ..Timing::default() };
        let held = Election::new("a", long).record(None, wall(0));
        assert_eq!(held.lease_duration_seconds, Some(60));
        let mut b = candidate("b");
        b.step(Some(&held), start);
        assert_eq!(b.step(Some(&held), after(start, 59)), Wish::Wait);
        let nothing = LeaseSpec { lease_duration_seconds: None, ..held };
        b.step(Some(&nothing), start);
        assert_eq!(b.step(Some(&nothing), after(start, 14)), Wish::Wait);
        assert_eq!(b.step(Some(&nothing), after(start, 15)), Wish::Hold);
    }
}
