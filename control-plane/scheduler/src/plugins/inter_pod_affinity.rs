//! InterPodAffinity: near pods that match, away from pods that match, and away from pods that want to be away from
//! this one; preferred terms of this pod and of those that run add or take weight.

use std::any::Any;
use std::collections::BTreeMap;

use crate::framework::{Change, Cycle, Interest, NODES, Normalize, PODS, Plugin, Verdict, Wake, What};
use crate::pod::{AffinityTerm, PodInfo};
use crate::snapshot::{NodeInfo, Snapshot};

/// Weight of a running pod's required affinity to this pod: upstream's hardPodAffinityWeight.
const REQUIRED_WEIGHT: i64 = 1;

pub const PLUGIN: Plugin = Plugin {
    name: "InterPodAffinity",
    weight: 2,
    prepare,
    filter: Some(filter),
    score: Some(score),
    normalize: Normalize::Span,
    adjust: Some(adjust),
    wakes: &[
        Wake::new(PODS, &[What::Added], |_, pod| !pod.affinity.is_empty()),
        Wake::new(PODS, &[What::Removed], was_apart),
        Wake::new(NODES, &[What::Added, What::Updated], |_, _| true),
    ],
    ..Plugin::NOTHING
};

fn was_apart(change: &Change, pod: &PodInfo) -> bool {
    !pod.anti_affinity.is_empty() || change.object::<PodInfo>().is_some_and(|gone| !gone.anti_affinity.is_empty())
}

type Counts = BTreeMap<(String, String), i64>;

/// What is counted per (topology key, value).
#[derive(Debug, Clone, Default)]
struct AffinityCounts {
    /// Pods that match every required affinity term, one map per term.
    wanted: Vec<Counts>,
    unwanted: Vec<Counts>,
    /// Running pods that required not to be near this pod.
    existing: Counts,
    weights: Counts,
}

fn prepare(cycle: Cycle) -> Interest {
    let (pod, snapshot) = (cycle.pod, cycle.snapshot);
    let own = pod.has_pod_affinity() || !pod.anti_affinity.is_empty();
    if !own && !snapshot.any_affinity() {
        return Interest::none();
    }
    let mut counts = AffinityCounts {
        wanted: vec![Counts::new(); pod.affinity.len()],
        unwanted: vec![Counts::new(); pod.anti_affinity.len()],
        ..AffinityCounts::default()
    };
    for node in snapshot.nodes() {
        for other in &node.pods {
            count(&mut counts, pod, other, node, snapshot, 1);
        }
    }
    let filter = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty() || !counts.existing.is_empty();
    let score = !counts.weights.is_empty();
    Interest::when(filter, score).with(counts)
}

fn count(counts: &mut AffinityCounts, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, snapshot: &Snapshot, by: i64) {
    let namespaces = |ns: &str| snapshot.namespace_labels(ns);
    let add = |to: &mut Counts, term: &AffinityTerm, amount: i64| {
        if let Some(value) = node.labels.get(&term.topology_key) {
            let entry = to.entry((term.topology_key.clone(), value.clone())).or_insert(0);
            *entry += amount * by;
        }
    };
    // A pod counts for affinity only when it matches all required terms.
    if !pod.affinity.is_empty() && pod.affinity.iter().all(|t| t.matches(other, &namespaces)) {
        for (term, to) in pod.affinity.iter().zip(&mut counts.wanted) {
            add(to, term, 1);
        }
    }
    for (term, to) in pod.anti_affinity.iter().zip(&mut counts.unwanted) {
        if term.matches(other, &namespaces) {
            add(to, term, 1);
        }
    }
    for term in other.anti_affinity.iter().filter(|t| t.matches(pod, &namespaces)) {
        add(&mut counts.existing, term, 1);
    }
    let mine = [(&pod.preferred_affinity, 1), (&pod.preferred_anti_affinity, -1)];
    for (terms, sign) in mine {
        for term in terms.iter().filter(|t| t.matches(other, &namespaces)) {
            add(&mut counts.weights, term, sign * term.weight);
        }
    }
    let theirs = [(&other.preferred_affinity, 1), (&other.preferred_anti_affinity, -1)];
    for (terms, sign) in theirs {
        for term in terms.iter().filter(|t| t.matches(pod, &namespaces)) {
            add(&mut counts.weights, term, sign * term.weight);
        }
    }
    for term in other.affinity.iter().filter(|t| t.matches(pod, &namespaces)) {
        add(&mut counts.weights, term, REQUIRED_WEIGHT);
    }
}

fn filter(cycle: Cycle, state: &dyn Any, node: &NodeInfo) -> Verdict {
    let Some(counts) = state.downcast_ref::<AffinityCounts>() else { return Verdict::Fits };
    let at = |term: &AffinityTerm, counts: &Counts| {
        let value = node.labels.get(&term.topology_key)?;
        Some(counts.get(&(term.topology_key.clone(), value.clone())).copied().unwrap_or(0))
    };
    let pod = cycle.pod;
    if !near_what_it_wants(cycle, counts, node) {
        return Verdict::Unresolvable("node(s) didn't match pod affinity rules".into());
    }
    let mut unwanted = pod.anti_affinity.iter().zip(&counts.unwanted);
    if unwanted.any(|(term, counts)| at(term, counts).is_some_and(|n| n > 0)) {
        return Verdict::Unschedulable("node(s) didn't match pod anti-affinity rules".into());
    }
    let mut existing = counts.existing.iter().filter(|(_, n)| **n > 0);
    if existing.any(|((key, value), _)| node.labels.get(key) == Some(value)) {
        return Verdict::Unschedulable("node(s) didn't satisfy existing pods anti-affinity rules".into());
    }
    Verdict::Fits
}

fn near_what_it_wants(cycle: Cycle, counts: &AffinityCounts, node: &NodeInfo) -> bool {
    let pod = cycle.pod;
    if pod.affinity.is_empty() {
        return true;
    }
    let labelled = pod.affinity.iter().all(|t| node.labels.contains_key(&t.topology_key));
    let near = pod.affinity.iter().zip(&counts.wanted).all(|(term, counts)| {
        let value = node.labels.get(&term.topology_key).cloned().unwrap_or_default();
        counts.get(&(term.topology_key.clone(), value)).is_some_and(|n| *n > 0)
    });
    if labelled && near {
        return true;
    }
    // The first of a group that wants to be together has nobody to join yet.
    let nobody = counts.wanted.iter().all(|c| c.values().all(|n| *n == 0));
    let namespaces = |ns: &str| cycle.snapshot.namespace_labels(ns);
    labelled && nobody && pod.affinity.iter().all(|t| t.matches(pod, &namespaces))
}

fn score(_: Cycle, state: &dyn Any, node: &NodeInfo) -> i64 {
    let weights = state.downcast_ref::<AffinityCounts>().into_iter().flat_map(|counts| &counts.weights);
    weights.filter(|((key, value), _)| node.labels.get(key) == Some(value)).map(|(_, weight)| weight).sum()
}

fn adjust(cycle: Cycle, state: &mut dyn Any, other: &PodInfo, node: &NodeInfo, by: i64) {
    if let Some(counts) = state.downcast_mut() {
        count(counts, cycle.pod, other, node, cycle.snapshot, by);
    }
}
