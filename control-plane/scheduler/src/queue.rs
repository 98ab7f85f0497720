//! Who is scheduled next. Pods wait in one of four places: *active* (by priority, then age), *backoff* (refused lately),
//! *unschedulable* (until a change that a refusing plugin cares for), *gated* (spec.schedulingGates). Pure: time is an
//! argument, in milliseconds of any steady clock. Called by the daemon.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::framework::{Change, Profile};
use crate::pod::PodInfo;

/// podInitialBackoffSeconds and podMaxBackoffSeconds of upstream's configuration.
const INITIAL_BACKOFF_MS: u64 = 1_000;
const MAX_BACKOFF_MS: u64 = 10_000;
/// Nobody waits longer than this for a change, in case a hint is wrong.
const UNSCHEDULABLE_MS: u64 = 5 * 60_000;

/// A waiting pod.
#[derive(Debug, Clone)]
pub struct Queued {
    pub pod: Arc<PodInfo>,
    pub attempts: u32,
    /// When it first came, in milliseconds; keeps its place among its priority.
    pub added: u64,
    /// Plugins that refused it last time.
    refused_by: Vec<&'static str>,
    refused_at: u64,
}

impl Queued {
    fn backoff_until(&self) -> u64 {
        let factor = 1u64 << self.attempts.saturating_sub(1).min(10);
        self.refused_at + (INITIAL_BACKOFF_MS * factor).min(MAX_BACKOFF_MS)
    }

    fn order(&self) -> (Reverse<i32>, u64, String) {
        (Reverse(self.pod.priority), self.added, self.pod.uid.clone())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Active,
    /// Until this time.
    Backoff(u64),
    /// Until a change wakes it, or this time.
    Unschedulable(u64),
    Gated,
    /// Being decided on or bound; changes meanwhile must not be missed.
    InFlight,
}

/// Upstream's names of the queues that pods wait in.
const WAITING: [&str; 4] = ["active", "backoff", "unschedulable", "gated"];

impl Place {
    /// Index in [`WAITING`].
    fn waiting(&self) -> Option<usize> {
        match self {
            Place::Active => Some(0),
            Place::Backoff(_) => Some(1),
            Place::Unschedulable(_) => Some(2),
            Place::Gated => Some(3),
            Place::InFlight => None,
        }
    }
}

/// See the module's head.
pub struct Queue {
    profile: Profile,
    pods: HashMap<String, (Queued, Place)>,
    active: BTreeSet<(Reverse<i32>, u64, String)>,
    /// Everything that waits for a time, earliest first.
    timed: BTreeSet<(u64, String)>,
    /// Counts changes, so that a pod refused on old knowledge tries again.
    changes: u64,
    taken_at: HashMap<String, u64>,
    /// Pods by place, in the order of [`Queue::waiting`].
    counts: [usize; 4],
}

impl Queue {
    /// `profile`: whose plugins refuse pods and say what wakes them.
    pub fn new(profile: Profile) -> Queue {
        Queue {
            profile,
            pods: HashMap::new(),
            active: BTreeSet::new(),
            timed: BTreeSet::new(),
            changes: 0,
            taken_at: HashMap::new(),
            counts: [0; 4],
        }
    }

    /// A pod appears or its spec or labels changed.
    pub fn put(&mut self, pod: Arc<PodInfo>, now: u64) {
        let uid = pod.uid.clone();
        let gated = pod.gated;
        let (mut queued, was) = match self.leave(&uid) {
            Some((queued, was)) => (queued, Some(was)),
            None => (Queued { pod: pod.clone(), attempts: 0, added: now, refused_by: vec![], refused_at: 0 }, None),
        };
        queued.pod = pod;
        let place = match was {
            _ if gated => Place::Gated,
            Some(Place::InFlight) => Place::InFlight,
            _ => Place::Active,
        };
        self.enter(queued, place);
    }

    /// The pod is gone or bound.
    pub fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.taken_at.remove(uid);
    }

    /// The next pod to decide on. It stays known, in flight, until [`Queue::remove`], [`Queue::refused`] or
    /// [`Queue::failed`].
    pub fn take(&mut self, now: u64) -> Option<Queued> {
        self.wake_due(now);
        let uid = self.active.first()?.2.clone();
        let (mut queued, _) = self.leave(&uid)?;
        queued.attempts += 1;
        self.taken_at.insert(uid, self.changes);
        self.enter(queued.clone(), Place::InFlight);
        Some(queued)
    }

    /// No node fits.
    pub fn refused(&mut self, uid: &str, plugins: Vec<&'static str>, now: u64) {
        let Some((mut queued, _)) = self.leave(uid) else { return };
        queued.refused_by = plugins;
        queued.refused_at = now;
        // Something changed while the decision was under way: it may have been made on old knowledge.
        let stale = self.taken_at.remove(uid).is_some_and(|then| then != self.changes);
        let until = queued.backoff_until();
        let place = if stale { Place::Backoff(until) } else { Place::Unschedulable(now + UNSCHEDULABLE_MS) };
        self.enter(queued, place);
    }

    /// A decision couldn't be carried out: try again after the backoff.
    pub fn failed(&mut self, uid: &str, now: u64) {
        let Some((mut queued, _)) = self.leave(uid) else { return };
        queued.refused_at = now;
        self.taken_at.remove(uid);
        let until = queued.backoff_until();
        self.enter(queued, Place::Backoff(until));
    }

    /// Tells what changed: pods whose refusing plugins care come back.
    pub fn changed(&mut self, change: &Change) {
        self.changes += 1;
        let refused = |q: &Queued, name: &'static str| q.refused_by.contains(&name);
        let cares = |q: &Queued| {
            q.refused_by.is_empty() || self.profile.iter().any(|p| refused(q, p.name) && p.wakes(change, &q.pod))
        };
        let waits = |place: &Place| matches!(place, Place::Unschedulable(_));
        let waiting = self.pods.iter().filter(|(_, (q, place))| waits(place) && cares(q));
        let woken: Vec<String> = waiting.map(|(uid, _)| uid.clone()).collect();
        for uid in woken {
            if let Some((queued, _)) = self.leave(&uid) {
                let until = queued.backoff_until();
                self.enter(queued, Place::Backoff(until));
            }
        }
    }

    /// When [`Queue::take`] may have something though nothing changed.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timed.first().map(|(at, _)| *at)
    }

    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    pub fn get(&self, uid: &str) -> Option<&Queued> {
        self.pods.get(uid).map(|(q, _)| q)
    }

    /// How many pods wait in each queue.
    pub fn waiting(&self) -> [(&'static str, usize); 4] {
        std::array::from_fn(|at| (WAITING[at], self.counts[at]))
    }

    fn wake_due(&mut self, now: u64) {
        while let Some((at, uid)) = self.timed.first().cloned() {
            if at > now {
                return;
            }
            self.timed.pop_first();
            if let Some((queued, _)) = self.leave(&uid) {
                self.enter(queued, Place::Active);
            }
        }
    }

    fn leave(&mut self, uid: &str) -> Option<(Queued, Place)> {
        let (queued, place) = self.pods.remove(uid)?;
        if let Some(at) = place.waiting() {
            self.counts[at] -= 1;
        }
        match place {
            Place::Active => drop(self.active.remove(&queued.order())),
            Place::Backoff(until) | Place::Unschedulable(until) => drop(self.timed.remove(&(until, uid.to_owned()))),
            Place::Gated | Place::InFlight => {}
        }
        Some((queued, place))
    }

    fn enter(&mut self, queued: Queued, place: Place) {
        let uid = queued.pod.uid.clone();
        if let Some(at) = place.waiting() {
            self.counts[at] += 1;
        }
        match place {
            Place::Active => drop(self.active.insert(queued.order())),
            Place::Backoff(until) | Place::Unschedulable(until) => drop(self.timed.insert((until, uid.clone()))),
            Place::Gated | Place::InFlight => {}
        }
        self.pods.insert(uid, (queued, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::What;
    use crate::plugins::PLUGINS;
    use crate::snapshot::NodeInfo;
    use k8s_openapi::api::core::v1::{Pod, PodSchedulingGate, PodSpec};

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        of_spec(uid, PodSpec { priority: Some(priority), ..PodSpec::default() })
    }

    fn of_spec(uid: &str, spec: PodSpec) -> Arc<PodInfo> {
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.uid = Some(uid.into());
        Arc::new(PodInfo::new(&pod))
    }

    fn order(queue: &mut Queue, now: u64) -> Vec<String> {
        std::iter::from_fn(|| queue.take(now).map(|q| q.pod.uid.clone())).collect()
    }

    #[test]
    fn priority_then_age() {
        let mut queue = Queue::new(PLUGINS);
        queue.put(pod("old", 0), 1);
        queue.put(pod("young", 0), 2);
        queue.put(pod("important", 9), 3);
        assert_eq!(order(&mut queue, 4), ["important", "old", "young"]);
    }

    #[test]
    fn a_refused_pod_waits_for_a_change_that_its_refuser_cares_for_and_backs_off() {
        let mut queue = Queue::new(PLUGINS);
        queue.put(pod("a", 0), 0);
        assert_eq!(order(&mut queue, 0), ["a"]);
        queue.refused("a", vec!["NodeResourcesFit"], 0);
        assert!(order(&mut queue, 60_000).is_empty(), "nothing changed");
        let small = NodeInfo::default();
        queue.changed(&Change::node(What::Added, &small));
        assert!(order(&mut queue, 60_000).is_empty(), "the new node has no room either");
        queue.changed(&Change::pod(What::Removed, &pod("gone", 0)));
        assert!(order(&mut queue, 999).is_empty(), "one second of backoff");
        assert_eq!(order(&mut queue, 1_000), ["a"]);
    }

    #[test]
    fn a_change_during_the_decision_is_not_missed() {
        let mut queue = Queue::new(PLUGINS);
        queue.put(pod("a", 0), 0);
        queue.take(0);
        queue.changed(&Change::pod(What::Removed, &pod("gone", 0)));
        queue.refused("a", vec!["NodeResourcesFit"], 0);
        assert_eq!(order(&mut queue, 1_000), ["a"]);
    }

    #[test]
    fn gates_keep_a_pod_out() {
        let mut queue = Queue::new(PLUGINS);
        let gates = Some(vec![PodSchedulingGate { name: "x".into() }]);
        queue.put(of_spec("a", PodSpec { scheduling_gates: gates, ..PodSpec::default() }), 0);
        assert!(order(&mut queue, 0).is_empty());
        queue.put(pod("a", 0), 1);
        assert_eq!(order(&mut queue, 1), ["a"]);
    }
}
