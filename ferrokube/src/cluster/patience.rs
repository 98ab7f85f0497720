//! How long a start is waited for: as long as something shows that it goes on. A small board and a host that does other
//! things take minutes for what others do in a second, so no clock alone says that a start has failed. Pure, but for
//! [`cpu_time`]. Called by [`super::Assembly`] while its components start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often what goes on is looked at.
pub const LOOK: Duration = Duration::from_secs(2);
/// Nothing at all went on for so long: it never will.
const QUIET: Duration = Duration::from_secs(60);
/// The same of a node that was in its cluster before: it goes on without what its API server has to say.
const QUIET_ALONE: Duration = Duration::from_secs(10);
/// A process that only computes, and gets nothing done, is given up after this.
const BUSY: Duration = Duration::from_secs(15 * 60);
/// The share of one processor above which a process works, and doesn't merely ask again.
const WORKING: u32 = 4;

/// What those say who have long work to do. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Word(Arc<Mutex<Option<String>>>);

impl Word {
    pub fn say(&self, word: String) {
        *self.0.lock() = Some(word);
    }

    pub fn clear(&self) {
        *self.0.lock() = None;
    }

    pub fn said(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// What a start shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signs {
    /// Components that don't do their work yet.
    pub missing: usize,
    /// What the node, and who has long work to do, say.
    pub words: Vec<Option<String>>,
    /// Time that this process computed.
    pub cpu: Duration,
}

/// The memory of what was seen last.
#[derive(Debug)]
pub struct Patience {
    quiet: Duration,
    signs: Signs,
    looked: Instant,
    /// When something went on last.
    sign: Instant,
    /// When something got done last.
    step: Instant,
}

impl Patience {
    pub fn new(signs: Signs, now: Instant) -> Patience {
        Patience { quiet: QUIET, signs, looked: now, sign: now, step: now }
    }

    /// Of a node that can go on without an API server.
    pub fn alone(self) -> Patience {
        Patience { quiet: QUIET_ALONE, ..self }
    }

    /// How long nothing has gone on, when that is too long.
    pub fn lost(&mut self, signs: Signs, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked);
        if signs.missing != self.signs.missing || signs.words != self.signs.words {
            (self.step, self.sign) = (now, now);
        } else if signs.cpu.saturating_sub(self.signs.cpu) > passed / WORKING {
            self.sign = now;
        }
        (self.signs, self.looked) = (signs, now);
        let quiet = now.saturating_duration_since(self.sign);
        let idle = now.saturating_duration_since(self.step);
        (quiet >= self.quiet || idle >= BUSY).then_some(idle)
    }
}

/// What this process has computed so far.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name may hold spaces: the fields begin after the last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(missing: usize, word: &str, cpu: u64) -> Signs {
        Signs { missing, words: vec![Some(word.to_owned())], cpu: Duration::from_millis(cpu) }
    }

    /// The second at which a start is given up that shows these signs.
    fn given_up(at: impl Fn(u64) -> Signs) -> Option<u64> {
        let began = Instant::now();
        let mut patience = Patience::new(at(0), began);
        (1..2000).find(|second| patience.lost(at(*second), began + Duration::from_secs(*second)).is_some())
    }

    /// After 60 s a start on a small board had failed, whatever it was doing.
    #[test]
    fn a_start_goes_on_as_long_as_something_goes_on() {
        assert_eq!(given_up(|_| signs(1, "", 0)), Some(60), "nothing happens");
        assert_eq!(given_up(|s| signs(9 - (s / 50).min(8) as usize, "", 0)), Some(460), "each component takes a while");
        assert_eq!(given_up(|s| signs(1, &format!("importing, {} MB", s.min(600) / 10), 0)), Some(660));
        assert_eq!(given_up(|s| signs(1, "", 1000 * s.min(300))), Some(360), "it computes for five minutes");
        assert_eq!(given_up(|s| signs(1, "", 100 * s)), Some(60), "it only asks again and again");
        assert_eq!(given_up(|s| signs(1, "", 1000 * s)), Some(900), "it computes, and nothing comes of it");
    }
}
