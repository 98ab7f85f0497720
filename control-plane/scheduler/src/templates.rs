//! What replicas ask of the scheduler, once for all of them: pods of one template differ in their names. Pure. Called by the
//! daemon with every pod that it takes in.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use rustc_hash::{FxHashMap, FxHasher};

use crate::pod::{Asks, PodInfo};

/// Those that nobody asks for any more are looked for when there are twice as many as last time, but no sooner than with
/// these.
const FEWEST: usize = 64;

/// See the module's head.
#[derive(Default)]
pub struct Templates {
    known: FxHashMap<u64, Weak<Asks>>,
    limit: usize,
}

impl Templates {
    /// The pod, with what others that ask for the same have.
    pub fn shared(&mut self, mut pod: PodInfo) -> PodInfo {
        let known = self.known.entry(hash(&pod.asks)).or_default();
        match known.upgrade().filter(|asks| *asks == pod.asks) {
            Some(asks) => pod.asks = asks,
            None => *known = Arc::downgrade(&pod.asks),
        }
        if self.known.len() > self.limit.max(FEWEST) {
            self.known.retain(|_, asks| asks.strong_count() > 0);
            self.limit = self.known.len() * 2;
        }
        pod
    }
}

/// By what tells most templates apart; those that it doesn't are told apart by looking at all of them.
fn hash(asks: &Asks) -> u64 {
    let mut hasher = FxHasher::default();
    (&asks.labels, &asks.images, &asks.controller, asks.priority).hash(&mut hasher);
    (asks.requests.milli_cpu, asks.requests.memory).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::pod;

    fn of(name: &str, selector: &str) -> PodInfo {
        (*pod(name, json!({"spec": {"nodeSelector": {"disk": selector}}}))).clone()
    }

    #[test]
    fn replicas_share_what_they_ask_for_and_others_do_not() {
        let mut templates = Templates::default();
        let [a, b, c] = [("a", "ssd"), ("b", "ssd"), ("c", "none")].map(|(n, s)| templates.shared(of(n, s)));
        assert!(Arc::ptr_eq(&a.asks, &b.asks));
        assert!(
            !Arc::ptr_eq(&a.asks, &c.asks) && a.required_nodes != c.required_nodes,
            "what hashes alike is compared"
        );
        assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let mut templates = Templates::default();
        for n in 0..FEWEST * 3 {
            templates.shared((*pod("a", json!({"metadata": {"labels": {"n": n.to_string()}}}))).clone());
        }
        assert!(templates.known.len() <= FEWEST + 1, "{}", templates.known.len());
    }
}
