//! The API servers that a node alone knows of, and in which order they are tried. Pure: the time is the caller's to tell.
//! Called by [`super`].
//!
//! ```text
//!   learned   192.0.2.1:6443  192.0.2.2:6443  192.0.2.3:6443    where the `kubernetes` Service leads
//!   given     api.example:6443                                  what --server said at the first start
//!   order     learned that work, each node's own way round; given that work; the rest, the longest untried first
//! ```
//!
//! Every node has an order of its own, by its name and theirs, so that they spread over the servers and each comes back to
//! its first when that is back. What was given stays as a way in when all that was learned is gone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Host and port, as in a URL.
pub type Server = String;

/// More servers than this no cluster has: a slice holds a hundred endpoints.
const MOST: usize = 100;
/// The pause before a server that failed is looked at again, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// What of it is kept on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    pub given: Vec<Server>,
    pub learned: Vec<Server>,
}

/// A server that failed.
#[derive(Debug, Clone, Copy)]
struct Failed {
    pause: Duration,
    /// When it is to be looked at.
    again: Instant,
}

/// See the module's head.
#[derive(Debug)]
pub struct Servers {
    /// Whose order it is.
    node: String,
    kept: Kept,
    failed: BTreeMap<Server, Failed>,
}

impl Servers {
    pub fn new(node: &str, kept: Kept) -> Servers {
        Servers { node: node.to_owned(), kept, failed: BTreeMap::new() }
    }

    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Every server, each once: those that are learned in this node's order, then those that are given.
    pub fn all(&self) -> Vec<Server> {
        let mut all = self.kept.learned.clone();
        all.sort_by_key(|server| (Reverse(weight(&self.node, server)), server.clone()));
        all.extend(self.kept.given.iter().filter(|server| !self.kept.learned.contains(server)).cloned());
        all
    }

    /// In which order they are tried now. One that failed is tried when all others have.
    pub fn order(&self) -> Vec<Server> {
        let mut all = self.all();
        all.sort_by_key(|server| self.failed.get(server).map(|failed| failed.again));
        all
    }

    pub fn works(&self, server: &str) -> bool {
        !self.failed.contains_key(server)
    }

    /// Whether there is another that works.
    pub fn has_other(&self, than: &str) -> bool {
        self.all().iter().any(|server| server != than && self.works(server))
    }

    /// It could not be reached, or does not do its work. True if that is news.
    pub fn fail(&mut self, server: &str, now: Instant) -> bool {
        let before = self.failed.get(server).map(|failed| failed.pause);
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LAST_PAUSE));
        self.failed.insert(server.to_owned(), Failed { pause, again: now + pause });
        before.is_none()
    }

    /// It does its work. True if that is news.
    pub fn work(&mut self, server: &str) -> bool {
        self.failed.remove(server).is_some()
    }

    /// Those that failed and are to be looked at now.
    pub fn due(&self, now: Instant) -> Vec<Server> {
        self.failed.iter().filter(|(_, failed)| failed.again <= now).map(|(server, _)| server.clone()).collect()
    }

    /// When the next one is to be looked at.
    pub fn next(&self) -> Option<Instant> {
        self.failed.values().map(|failed| failed.again).min()
    }

    /// The `kubernetes` Service leads to these now. True if they are others than before. None at all is no news: a cluster
    /// has a server, or nobody could have told.
    pub fn learn(&mut self, servers: BTreeSet<Server>) -> bool {
        let learned: Vec<Server> = servers.into_iter().take(MOST).collect();
        if learned.is_empty() || learned == self.kept.learned {
            return false;
        }
        self.kept.learned = learned;
        let all = self.all();
        self.failed.retain(|server, _| all.contains(server));
        true
    }
}

/// How much a node likes a server: FNV-1a, so that it is the same after every start and with every version.
fn weight(node: &str, server: &str) -> u64 {
    let bytes = node.bytes().chain([0]).chain(server.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> [Server; 3] {
        ["192.0.2.1:6443", "192.0.2.2:6443", "192.0.2.3:6443"].map(str::to_owned)
    }

    fn of(node: &str) -> Servers {
        let mut servers = Servers::new(node, Kept { given: vec!["api.example:6443".into()], learned: vec![] });
        assert!(servers.learn(three().into()));
        servers
    }

    #[test]
    fn nodes_spread_over_the_servers_and_each_keeps_to_its_order() {
        let mut first = BTreeMap::<Server, usize>::new();
        for n in 0..300 {
            let order = of(&format!("node-{n}")).order();
            assert_eq!(order, of(&format!("node-{n}")).order());
            assert_eq!(order.last().map(String::as_str), Some("api.example:6443"), "a way in when all else fails");
            *first.entry(order[0].clone()).or_default() += 1;
        }
        assert!(first.len() == 3 && first.values().all(|count| *count > 50), "{first:?}");
    }

    #[test]
    fn one_that_failed_is_tried_last_and_is_the_first_again_when_it_is_back() {
        let (mut servers, now) = (of("node"), Instant::now());
        let first = servers.order()[0].clone();
        assert!(servers.fail(&first, now) && !servers.fail(&first, now), "news once");
        assert_eq!(servers.order().last(), Some(&first));
        assert!(!servers.works(&first) && servers.has_other(&first));
        assert!(servers.work(&first) && !servers.work(&first));
        assert_eq!(servers.order()[0], first);
    }

    #[test]
    fn one_that_fails_again_and_again_is_looked_at_less_often() {
        let (mut servers, mut now) = (of("node"), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            servers.fail("192.0.2.1:6443", now);
            let next = servers.next().expect("one is due");
            pauses.push((next - now).as_secs());
            assert!(servers.due(now).is_empty());
            now = next;
            assert_eq!(servers.due(now), ["192.0.2.1:6443"]);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
    }

    #[test]
    fn when_all_have_failed_all_are_tried() {
        let (mut servers, now) = (of("node"), Instant::now());
        for (n, server) in servers.all().iter().enumerate() {
            servers.fail(server, now + Duration::from_secs(n as u64));
        }
        assert_eq!(servers.order(), servers.all(), "the longest untried first");
        assert!(!servers.has_other("192.0.2.1:6443"));
    }

    #[test]
    fn a_service_that_leads_nowhere_is_not_believed() {
        let mut servers = of("node");
        assert!(!servers.learn(BTreeSet::new()) && !servers.learn(three().into()));
        servers.fail("192.0.2.1:6443", Instant::now());
        assert!(servers.learn(["192.0.2.2:6443".to_owned()].into()));
        assert_eq!((servers.all().len(), servers.next()), (2, None), "who is gone is forgotten");
    }
}
