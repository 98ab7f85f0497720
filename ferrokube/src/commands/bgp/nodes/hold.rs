//! No nodes, where there were many a moment ago: an API or etcd that was restored, or that is another's, rather than a cluster
//! that has gone. Who was known stays for some minutes, in which somebody may put it right. Pure. Called by [`super::Teller`].

use std::time::Duration;

use tokio::time::Instant;

/// So many do not go at once.
const MANY: usize = 2;
/// For so long they stay.
pub const HELD: Duration = Duration::from_secs(5 * 60);

/// Since when they are held, if they are.
#[derive(Debug, Default)]
pub struct Hold(Option<Instant>);

/// What becomes of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It counts.
    Tell,
    /// It counts, and nobody is held any more, for there are some again.
    Back,
    /// It does not count: from now on those of before are held.
    Begin,
    /// It does not count yet.
    Wait,
    /// It counts, for it has been so all the time.
    Over,
}

impl Hold {
    /// There were so many, and now there are so many.
    pub fn step(&mut self, before: usize, after: usize, now: Instant) -> Step {
        match self.0 {
            _ if after > 0 || before < MANY => self.0.take().map_or(Step::Tell, |_| Step::Back),
            None => {
                self.0 = Some(now);
                Step::Begin
            }
            Some(since) if now.duration_since(since) < HELD => Step::Wait,
            Some(_) => {
                self.0 = None;
                Step::Over
            }
        }
    }

    /// When it is over.
    pub fn due(&self) -> Option<Instant> {
        self.0.map(|since| since + HELD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_go_to_none_after_some_minutes_and_not_where_some_come_back() {
        let began = Instant::now();
        let (mut hold, late) = (Hold::default(), began + HELD);
        assert_eq!(hold.step(0, 0, began), Step::Tell, "nobody was there");
        assert_eq!(hold.step(1, 0, began), Step::Tell, "the last one");
        assert_eq!((hold.step(3, 2, began), hold.due()), (Step::Tell, None));
        assert_eq!((hold.step(3, 0, began), hold.due()), (Step::Begin, Some(late)));
        assert_eq!(hold.step(3, 0, late - Duration::from_secs(1)), Step::Wait);
        assert_eq!((hold.step(3, 1, late), hold.due()), (Step::Back, None));
        assert_eq!(hold.step(3, 0, late), Step::Begin, "anew");
        assert_eq!((hold.step(3, 0, late + HELD), hold.due()), (Step::Over, None));
    }
}
