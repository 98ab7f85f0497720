//! PodTopologySpread: pods that match a constraint's selector spread over the values of a node label, at most
//! `maxSkew` apart (hard), or as evenly as can be (soft). A pod without constraints that belongs to a group (its
//! Services, its controller) is spread softly over hosts and zones.

use std::any::Any;
use std::collections::BTreeMap;

use crate::framework::{Change, Cycle, Interest, NODES, Normalize, PODS, Plugin, Verdict, Wake, What};
use crate::groups::Groups;
use crate::plugins::{node_affinity, taint_toleration};
use crate::pod::{PodInfo, SpreadTerm};
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "PodTopologySpread",
    weight: 2,
    prepare,
    filter: Some(filter),
    score: Some(score),
    normalize: Normalize::Reverse,
    adjust: Some(adjust),
    wakes: &[
        Wake::new(PODS, &[What::Added, What::Removed], counts_with),
        Wake::new(NODES, &[What::Added, What::Updated], has_all_keys),
    ],
    ..Plugin::NOTHING
};

fn counts_with(change: &Change, pod: &PodInfo) -> bool {
    let selected = |other: &PodInfo| pod.spread.iter().any(|t| t.selector.matches(&other.labels));
    change.object::<PodInfo>().is_some_and(|other| other.namespace == pod.namespace && selected(other))
}

fn has_all_keys(change: &Change, pod: &PodInfo) -> bool {
    let keys = |node: &NodeInfo| pod.spread.iter().all(|t| node.labels.contains_key(&t.topology_key));
    change.object::<NodeInfo>().is_some_and(keys)
}

/// Upstream's constraints for groups: node label and `maxSkew`, all soft.
const DEFAULTS: [(&str, i64); 2] = [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)];

/// The constraints of one pod, and the matching pods per topology value, one map per constraint.
#[derive(Debug, Clone, Default)]
struct Spread {
    terms: Vec<SpreadTerm>,
    counts: Vec<BTreeMap<String, i64>>,
    /// The constraints are the pod's own: a node without one of their keys is out of the question. The defaults are
    /// wishes: such a node is merely not counted.
    own: bool,
}

fn prepare(cycle: Cycle) -> Interest {
    let pod = cycle.pod;
    let own = !pod.spread.is_empty();
    let terms = if own { pod.spread.clone() } else { defaults(&cycle.snapshot.groups, pod) };
    if terms.is_empty() {
        return Interest::none();
    }
    let mut spread = Spread { counts: vec![BTreeMap::new(); terms.len()], terms, own };
    // Values without matching pods count too: they are the emptiest.
    for node in cycle.snapshot.nodes() {
        spread.add(pod, node, |_| 0);
    }
    for node in cycle.snapshot.nodes_with(&pod.namespace) {
        spread.add(pod, node, |term| node.pods.iter().filter(|other| counts_for(pod, term, other)).count() as i64);
    }
    Interest::when(spread.terms.iter().any(|t| t.hard), spread.terms.iter().any(|t| !t.hard)).with(spread)
}

fn defaults(groups: &Groups, pod: &PodInfo) -> Vec<SpreadTerm> {
    let Some(selector) = groups.of(pod) else { return Vec::new() };
    let term = |(key, max_skew): (&str, i64)| SpreadTerm {
        max_skew,
        topology_key: key.to_owned(),
        hard: false,
        selector: selector.clone(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    };
    DEFAULTS.into_iter().map(term).collect()
}

impl Spread {
    /// Adds a node's matching pods to every constraint for which the node counts.
    fn add(&mut self, pod: &PodInfo, node: &NodeInfo, matching: impl Fn(&SpreadTerm) -> i64) {
        let (hard, soft) = (self.has_keys(node, true), self.has_keys(node, false));
        for (term, counts) in self.terms.iter().zip(&mut self.counts) {
            let Some(value) = node.labels.get(&term.topology_key) else { continue };
            if (if term.hard { hard } else { soft }) && counted(pod, term, node) {
                match counts.get_mut(value) {
                    Some(count) => *count += matching(term),
                    None => drop(counts.insert(value.clone(), matching(term))),
                }
            }
        }
    }

    /// Whether the node has the keys of all hard or all soft constraints: without one it is outside of all of them.
    fn has_keys(&self, node: &NodeInfo, hard: bool) -> bool {
        let mut terms = self.terms.iter().filter(|t| t.hard == hard);
        !self.own || terms.all(|t| node.labels.contains_key(&t.topology_key))
    }

    fn with_counts(&self, hard: bool) -> impl Iterator<Item = (&SpreadTerm, &BTreeMap<String, i64>)> {
        self.terms.iter().zip(&self.counts).filter(move |(t, _)| t.hard == hard)
    }
}

/// Whether pods on the node count for the term.
fn counted(pod: &PodInfo, term: &SpreadTerm, node: &NodeInfo) -> bool {
    (!term.honor_affinity || node_affinity::matches(pod, node))
        && (!term.honor_taints || taint_toleration::untolerated(pod, node).is_none())
}

fn counts_for(pod: &PodInfo, term: &SpreadTerm, other: &PodInfo) -> bool {
    other.namespace == pod.namespace && !other.is_terminating && term.selector.matches(&other.labels)
}

fn filter(cycle: Cycle, state: &dyn Any, node: &NodeInfo) -> Verdict {
    let Some(spread) = state.downcast_ref::<Spread>() else { return Verdict::Fits };
    for (term, counts) in spread.with_counts(true) {
        let Some(value) = node.labels.get(&term.topology_key) else {
            let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Verdict::Unresolvable(reason.into());
        };
        let least =
            if (counts.len() as i64) < term.min_domains { 0 } else { counts.values().min().copied().unwrap_or(0) };
        let own = i64::from(term.selector.matches(&cycle.pod.labels));
        if counts.get(value).copied().unwrap_or(0) + own - least > term.max_skew {
            return Verdict::Unschedulable("node(s) didn't match pod topology spread constraints".into());
        }
    }
    Verdict::Fits
}

fn score(_: Cycle, state: &dyn Any, node: &NodeInfo) -> i64 {
    let Some(spread) = state.downcast_ref::<Spread>() else { return 0 };
    if !spread.has_keys(node, false) {
        return -1;
    }
    let soft = spread.with_counts(false).filter_map(|(term, counts)| {
        let count = *counts.get(node.labels.get(&term.topology_key)?)?;
        // The more values there are, the more one more pod on a value weighs.
        let weight = ((counts.len() + 2) as f64).ln();
        Some(count as f64 * weight + (term.max_skew - 1) as f64)
    });
    soft.sum::<f64>().round() as i64
}

fn adjust(cycle: Cycle, state: &mut dyn Any, other: &PodInfo, node: &NodeInfo, by: i64) {
    let Some(spread) = state.downcast_mut::<Spread>() else { return };
    spread.add(cycle.pod, node, |term| if counts_for(cycle.pod, term, other) { by } else { 0 });
}
