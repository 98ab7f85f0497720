//! PodTopologySpread: pods that match a constraint's selector spread over the values of a node label, at most
//! `maxSkew` apart (hard), or as evenly as can be (soft).

use std::collections::BTreeMap;

use crate::framework::{Change, Cycle, Interest, Normalize, Plugin, Verdict};
use crate::plugins::{node_affinity, taint_toleration};
use crate::pod::{PodInfo, SpreadTerm};
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "PodTopologySpread",
    weight: 2,
    prepare,
    filter: Some(filter),
    score: Some(score),
    normalize: Normalize::SpanDown,
    adjust: Some(adjust),
    wakes: |change, pod| match change {
        Change::PodAdded(p) | Change::PodRemoved(p) => {
            p.namespace == pod.namespace && pod.spread.iter().any(|t| t.selector.matches(&p.labels))
        }
        Change::NodeAdded(n) | Change::NodeUpdated(n) => {
            pod.spread.iter().all(|t| n.labels.contains_key(&t.topology_key))
        }
    },
};

/// Matching pods per topology value, one map per constraint of the pod, in the pod's order.
#[derive(Debug, Clone, Default)]
pub struct SpreadCounts(Vec<BTreeMap<String, i64>>);

fn prepare(cycle: &mut Cycle) -> Interest {
    let terms = &cycle.pod.spread;
    if terms.is_empty() {
        return Interest::NONE;
    }
    let mut counts = vec![BTreeMap::new(); terms.len()];
    for node in cycle.snapshot.nodes() {
        // A node that lacks the key of one hard constraint is outside of all of them.
        if !terms.iter().filter(|t| t.hard).all(|t| node.labels.contains_key(&t.topology_key)) {
            continue;
        }
        for (term, count) in terms.iter().zip(&mut counts) {
            let Some(value) = node.labels.get(&term.topology_key) else { continue };
            if counted(cycle.pod, term, node) {
                *count.entry(value.clone()).or_insert(0) += matching(cycle.pod, term, node);
            }
        }
    }
    cycle.spread = SpreadCounts(counts);
    Interest::when(terms.iter().any(|t| t.hard), terms.iter().any(|t| !t.hard))
}

/// Whether pods on the node count for the term.
fn counted(pod: &PodInfo, term: &SpreadTerm, node: &NodeInfo) -> bool {
    (!term.honor_affinity || node_affinity::matches(pod, node))
        && (!term.honor_taints || taint_toleration::untolerated(pod, node).is_none())
}

fn matching(pod: &PodInfo, term: &SpreadTerm, node: &NodeInfo) -> i64 {
    node.pods.iter().filter(|p| counts_for(pod, term, p)).count() as i64
}

fn counts_for(pod: &PodInfo, term: &SpreadTerm, other: &PodInfo) -> bool {
    other.namespace == pod.namespace && !other.is_terminating() && term.selector.matches(&other.labels)
}

fn filter(cycle: &Cycle, node: &NodeInfo) -> Verdict {
    let terms = cycle.pod.spread.iter().zip(&cycle.spread.0);
    for (term, counts) in terms.filter(|(t, _)| t.hard) {
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

fn score(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let terms = cycle.pod.spread.iter().zip(&cycle.spread.0);
    let soft = terms.filter(|(t, _)| !t.hard).map(|(term, counts)| {
        let count = node.labels.get(&term.topology_key).and_then(|v| counts.get(v)).copied();
        // A node without the label is the worst place: as full as everything together.
        let count = count.unwrap_or_else(|| counts.values().sum());
        // The more values there are, the more one more pod on a value weighs.
        let weight = ((counts.len() + 2) as f64).ln();
        (count as f64 * weight * 16.0) as i64 + (term.max_skew - 1)
    });
    soft.sum()
}

fn adjust(cycle: &mut Cycle, other: &PodInfo, node: &NodeInfo, by: i64) {
    let pod = cycle.pod;
    for (term, counts) in pod.spread.iter().zip(&mut cycle.spread.0) {
        let Some(value) = node.labels.get(&term.topology_key) else { continue };
        if counts_for(pod, term, other) && counted(pod, term, node) {
            *counts.entry(value.clone()).or_insert(0) += by;
        }
    }
}
