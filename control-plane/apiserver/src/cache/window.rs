//! The event window of one watch cache: the newest events, for watches that resume and pages that continue. Pure.
//!
//! ```text
//!            floor                                 newest
//!   forgotten │ e₁ e₂ e₃ ………………………………………… eₙ₋₁ eₙ │
//!             │ encoded again when asked │ frames kept │
//! ```
//!
//! It is bounded by number, by the bytes of replaced objects that only it holds, and by age: what is older than a watch
//! could need goes even when nothing new comes, so that a burst is not held for ever. Who asks for more relists, or
//! reads the store's own history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Event;

/// Most events: a minute of a very busy resource.
pub(crate) const MOST_EVENTS: usize = 65_536;
/// Most bytes of replaced and deleted objects.
const MOST_BYTES: usize = 32 << 20;
/// Events younger than this are kept within the two bounds above: clients come back from a lost connection sooner.
/// Upstream's `eventFreshDuration`.
pub(crate) const FRESH: Duration = Duration::from_secs(75);
/// Events kept at any age, so that a quiet resource can be resumed; upstream's smallest capacity is 100.
pub(crate) const FEWEST_EVENTS: usize = 128;
/// Newest events whose encoded frames are kept for the next watcher: as many as a watcher's queue holds. One that is
/// further behind has its own encoded.
const FRAMES_KEPT: usize = 512;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Window {
    events: VecDeque<(Instant, Arc<Event>)>,
    bytes: usize,
    /// Everything after this revision is here.
    floor: i64,
    /// Sequence of the next event; the window holds those just before it, without gaps.
    next: u64,
}

impl Window {
    /// A window that begins after a revision, its first event with this sequence.
    pub fn new(floor: i64, next: u64) -> Window {
        Window { events: VecDeque::new(), bytes: 0, floor, next }
    }

    pub fn floor(&self) -> i64 {
        self.floor
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes the next event: its sequence is [`Window::next`].
    pub fn push(&mut self, event: Arc<Event>, now: Instant) {
        self.bytes += held(&event);
        self.next += 1;
        self.events.push_back((now, event));
        if let Some(at) = self.events.len().checked_sub(FRAMES_KEPT + 1) {
            self.events[at].1.drop_frames();
        }
        while self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES {
            self.forget_oldest();
        }
    }

    /// Forgets what is no longer fresh; when the next of the others will be, if any is left to wait for.
    pub fn age(&mut self, now: Instant) -> Option<Instant> {
        while self.events.len() > FEWEST_EVENTS {
            let stale = self.events.front().map(|(came, _)| *came + FRESH)?;
            if stale > now {
                return Some(stale);
            }
            self.forget_oldest();
        }
        self.events.shrink_to(FEWEST_EVENTS * 2);
        None
    }

    fn forget_oldest(&mut self) {
        if let Some((_, old)) = self.events.pop_front() {
            self.floor = old.revision();
            self.bytes -= held(&old);
        }
    }

    /// Events after a revision, oldest first; none when some of them are forgotten.
    pub fn since(&self, revision: i64) -> Option<impl DoubleEndedIterator<Item = &Arc<Event>> + use<'_>> {
        let from = self.events.partition_point(|(_, event)| event.revision() <= revision);
        (revision >= self.floor).then(|| self.events.range(from..).map(|(_, event)| event))
    }

    /// Events after the one with this sequence; none when some of them are forgotten.
    pub fn after(&self, sequence: u64) -> Option<impl Iterator<Item = &Arc<Event>> + use<'_>> {
        let first = self.next - self.events.len() as u64;
        let from = (sequence + 1).checked_sub(first)?;
        Some(self.events.range(from as usize..).map(|(_, event)| event))
    }
}

/// Bytes that nobody else holds.
fn held(event: &Event) -> usize {
    event.previous.as_ref().map_or(0, |previous| previous.value.len())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Entry, EventType, FrameKey, HeaderSpec};
    use super::*;
    use crate::storage::KeyValue;

    fn event(revision: i64) -> Arc<Event> {
        let kv = KeyValue {
            key: Bytes::from(format!("/r/{revision}")),
            value: Bytes::from_static(br#"{"metadata":{}}"#),
            create_revision: revision,
            mod_revision: revision,
            lease: 0,
        };
        let entry = Arc::new(Entry::new(kv, 3, &HeaderSpec::new([])).expect("an object"));
        Arc::new(Event::new(EventType::Added, entry.clone(), Some(entry), revision as u64))
    }

    fn window(events: usize, now: Instant) -> Window {
        let mut window = Window::new(0, 1);
        (1..=events).for_each(|n| window.push(event(n as i64), now));
        window
    }

    #[test]
    fn a_burst_is_forgotten_when_it_is_no_longer_fresh() {
        let began = Instant::now();
        let mut window = window(1_000, began);
        assert_eq!(window.age(began + FRESH / 2), Some(began + FRESH), "nothing yet, and when to look again");
        assert_eq!(window.since(0).expect("all of it").count(), 1_000);
        assert_eq!(window.age(began + FRESH), None, "no timer for what stays");
        let left = FEWEST_EVENTS as i64;
        assert!(window.since(1_000 - left - 1).is_none());
        assert_eq!(window.since(1_000 - left).expect("the newest").count(), FEWEST_EVENTS);
        assert_eq!(window.bytes, FEWEST_EVENTS * 15);
    }

    #[test]
    fn a_watcher_goes_on_where_it_was_or_is_told_that_it_can_not() {
        let window = window(MOST_EVENTS + 10, Instant::now());
        assert_eq!(window.after(10).expect("just there").count(), MOST_EVENTS);
        assert!(window.after(9).is_none());
        assert_eq!(window.after(window.next() - 1).expect("nothing new").count(), 0);
    }

    #[test]
    fn frames_of_old_events_are_not_kept() {
        let window = window(FRAMES_KEPT + 1, Instant::now());
        let key = FrameKey { event: EventType::Added, previous: false, format: 0 };
        let encodings = |event: &Event| {
            let mut times = 0;
            for _ in 0..2 {
                event.frame(key, || {
                    times += 1;
                    Bytes::from_static(b"frame")
                });
            }
            times
        };
        let events: Vec<_> = window.since(0).expect("all").collect();
        assert_eq!((encodings(events[0]), encodings(events[1])), (2, 1));
    }
}
