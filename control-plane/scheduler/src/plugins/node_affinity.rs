//! NodeAffinity: `nodeSelector` and required node affinity must match; preferred terms add their weights.

use crate::framework::{Change, Cycle, Interest, Normalize, Plugin, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "NodeAffinity",
    weight: 2,
    prepare,
    filter: Some(filter),
    score: Some(score),
    normalize: Normalize::Up,
    adjust: None,
    wakes: |change, pod| matches!(change, Change::NodeAdded(n) | Change::NodeUpdated(n) if matches(pod, n)),
};

fn prepare(cycle: &mut Cycle) -> Interest {
    let pod = cycle.pod;
    let required = !pod.node_selector.is_empty() || pod.required_nodes.is_some();
    let mut interest = Interest::when(required, !pod.preferred_nodes.is_empty());
    // Every term by name: no other node need be looked at (DaemonSet pods).
    if let Some(terms) = &pod.required_nodes {
        let names: Option<Vec<_>> = terms.iter().map(|t| t.names().map(<[String]>::to_vec)).collect();
        interest.only = names.map(|n| n.concat()).filter(|n| !n.is_empty());
    }
    interest
}

fn filter(cycle: &Cycle, node: &NodeInfo) -> Verdict {
    if matches(cycle.pod, node) {
        Verdict::Fits
    } else {
        Verdict::Unresolvable("node(s) didn't match Pod's node affinity/selector".into())
    }
}

/// Whether the node is one that the pod's selector and required affinity allow.
pub fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selected = pod.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v));
    let required = pod.required_nodes.as_ref();
    selected && required.is_none_or(|terms| terms.iter().any(|t| t.matches(&node.name, &node.labels)))
}

fn score(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let terms = cycle.pod.preferred_nodes.iter();
    terms.filter(|(_, t)| t.matches(&node.name, &node.labels)).map(|(weight, _)| weight).sum()
}
