//! Which nodes that may announce addresses have fallen silent, sooner than a node counts as gone. As long as the cluster has
//! addresses to announce, each node's announcer gives a sign every two seconds (`facts::announcing::SIGN`). Pure: time is an
//! argument, of a clock that nobody sets.
//!
//! **A silence is counted in what others say.** A node is silent when another one has given four signs since its last one.
//! So nobody seems silent when nobody can be heard: while the API server is away or slow, while this controller was stopped,
//! after a watch that broke off, when it has just begun to lead. And there is no timer: only a sign of somebody changes
//! anything. MetalLB's speakers ask each other every second instead (memberlist), on a port of their own; a Lease for each
//! address, as kube-vip has it, is given up by whoever can't renew it, and nobody answers while no API server does.
//!
//! A node that gives no signs at all, of an older version, is judged by its Ready condition alone, as all are besides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Signs of another node that make a silence. One may lie before an API server went away that all were waiting for, and two
/// more of who is first to find it again.
const OTHERS: usize = 4;
/// What of a sign is looked at: it is the node's to write.
const LONGEST: usize = 64;
/// However often others say something: one that starts again and again gives a sign each time.
const AT_LEAST: Duration = Duration::from_secs(5);

/// The last signs of one node.
#[derive(Debug)]
struct Node {
    said: String,
    at: Instant,
    /// Places of the last [`OTHERS`] signs among those of all nodes.
    places: VecDeque<u64>,
}

/// What was heard so far.
#[derive(Debug, Default)]
pub struct Signs {
    nodes: BTreeMap<String, Node>,
    count: u64,
    silent: BTreeSet<String>,
}

impl Signs {
    /// A node's Lease has this sign. True: other nodes are silent than before.
    pub fn heard(&mut self, node: &str, sign: &str, now: Instant) -> bool {
        let new = || Node { said: String::new(), at: now, places: VecDeque::new() };
        let last = self.nodes.entry(node.to_owned()).or_insert_with(new);
        let sign: String = sign.chars().take(LONGEST).collect();
        if last.said == sign {
            return false;
        }
        self.count += 1;
        (last.said, last.at) = (sign, now);
        last.places.push_back(self.count);
        if last.places.len() > OTHERS {
            last.places.pop_front();
        }
        self.judge(now)
    }

    /// A node is there no more, or gives no signs.
    pub fn forget(&mut self, node: &str, now: Instant) -> bool {
        self.nodes.remove(node).is_some() && self.judge(now)
    }

    /// Those that are silent, as of the last sign.
    pub fn silent(&self) -> BTreeSet<String> {
        self.silent.clone()
    }

    fn judge(&mut self, now: Instant) -> bool {
        // The one that has said so many things last: whoever was not heard since the first of them is silent.
        let full = self.nodes.values().filter(|node| node.places.len() == OTHERS);
        let since = full.filter_map(|node| node.places.front()).max().copied().unwrap_or(0);
        let is_silent = |node: &Node| {
            let last = node.places.back().copied().unwrap_or(0);
            last < since && now.saturating_duration_since(node.at) >= AT_LEAST
        };
        let silent = self.nodes.iter().filter(|(_, node)| is_silent(node)).map(|(name, _)| name.clone()).collect();
        std::mem::replace(&mut self.silent, silent) != self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signs of nodes at tenths of a second.
    struct Heard(Signs, u32, Instant);

    impl Default for Heard {
        fn default() -> Heard {
            Heard(Signs::default(), 0, Instant::now())
        }
    }

    impl Heard {
        fn hears(&mut self, node: &str, tenths: u64) -> bool {
            self.1 += 1;
            let sign = self.1.to_string();
            self.0.heard(node, &sign, self.2 + Duration::from_millis(tenths * 100))
        }

        fn silent(&self) -> Vec<String> {
            self.0.silent().into_iter().collect()
        }
    }

    #[test]
    fn who_says_nothing_while_another_speaks_is_silent_within_seconds_and_back_with_a_word() {
        // Whatever the phase of the other is: the last sign of `a` is at 10 s.
        for phase in 0..20 {
            let mut all = Heard::default();
            let mut silent_at = None;
            for second in (0..40).step_by(2) {
                if second <= 10 {
                    assert!(!all.hears("a", second * 10));
                }
                if all.hears("b", second * 10 + phase) {
                    silent_at = silent_at.or(Some(second * 10 + phase));
                }
            }
            let after = silent_at.expect("it is noticed") - 100;
            assert!((60..80).contains(&after), "{after} tenths of a second after the last sign, phase {phase}");
            assert_eq!(all.silent(), ["a"]);
            assert!(all.hears("a", 500) && all.silent().is_empty(), "it is back");
        }
    }

    #[test]
    fn nobody_is_silent_while_nobody_is_heard() {
        let mut all = Heard::default();
        for tenths in (0..100).step_by(20) {
            all.hears("a", tenths);
            all.hears("b", tenths + 10);
        }
        // The API server was away for a minute, and `b` is the first to be heard again; so after a relist.
        assert!(!all.hears("b", 700) && !all.hears("b", 720), "with the one before it was away, three");
        assert!(!all.hears("a", 725) && all.silent().is_empty());
        // A lone node has nobody to be measured by.
        let mut alone = Heard::default();
        (0..10).for_each(|n| assert!(!alone.hears("a", n * 20)));
        assert!(!alone.hears("a", 9000) && alone.silent().is_empty());
    }

    #[test]
    fn one_that_starts_again_and_again_makes_nobody_silent_at_once() {
        let mut all = Heard::default();
        all.hears("a", 0);
        (1..40).for_each(|tenths| assert!(!all.hears("b", tenths), "{tenths}"));
        assert!(all.silent().is_empty());
        assert!(all.hears("b", 51));
    }

    #[test]
    fn the_same_sign_read_twice_is_one_and_a_lease_that_is_gone_is_nobodys() {
        let (mut all, start) = (Signs::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        all.heard("a", "1", at(0));
        for _ in 0..10 {
            assert!(!all.heard("b", "1", at(60)), "a list, again");
        }
        let changed: Vec<bool> = (2..5).map(|n| all.heard("b", &n.to_string(), at(60 + n))).collect();
        assert_eq!((changed, all.silent().len()), (vec![false, false, true], 1));
        assert!(all.forget("a", at(70)) && all.silent().is_empty());
        assert!(!all.forget("a", at(70)));
    }
}
