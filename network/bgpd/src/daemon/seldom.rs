//! A line of the log that anybody can cause, told now and then. Pure. Used by the loop.

use bgp::session::Time;

/// Between two lines.
const PAUSE: Time = Time::from_secs(60);

/// One kind of line.
#[derive(Debug, Default)]
pub struct Seldom {
    next: Option<Time>,
    untold: u64,
}

impl Seldom {
    /// Whether it is told now, and then how often it was not since the last time.
    pub fn tell(&mut self, now: Time) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.untold += 1;
            return None;
        }
        self.next = Some(now + PAUSE);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_a_minute_with_how_many_were_not() {
        let mut line = Seldom::default();
        let told = [0, 1, 59, 60, 61, 200].map(|second| line.tell(Time::from_secs(second)));
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
