//! NodeAffinity: `nodeSelector` and required node affinity must match; preferred terms add their weights.

use std::any::Any;

use crate::framework::{Change, Cycle, Interest, NODES, Normalize, Plugin, Verdict, Wake, What};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "NodeAffinity",
    weight: 2,
    prepare,
    filter: Some(filter),
    score: Some(score),
    normalize: Normalize::Up,
    wakes: &[Wake::new(NODES, &[What::Added, What::Updated], allows)],
    ..Plugin::NOTHING
};

fn allows(change: &Change, pod: &PodInfo) -> bool {
    change.object::<NodeInfo>().is_some_and(|node| matches(pod, node))
}

fn prepare(cycle: Cycle) -> Interest {
    let pod = cycle.pod;
    let mut interest = Interest::when(!pod.required_nodes.is_anything(), !pod.preferred_nodes.is_empty());
    // Every term by name: no other node need be looked at (DaemonSet pods).
    let names = pod.required_nodes.names().filter(|names| !names.is_empty());
    interest.only = names.map(|names| names.into_iter().map(str::to_owned).collect());
    interest
}

fn filter(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> Verdict {
    if matches(cycle.pod, node) {
        Verdict::Fits
    } else {
        Verdict::Unresolvable("node(s) didn't match Pod's node affinity/selector".into())
    }
}

/// Whether the node is one that the pod's selector and required affinity allow.
pub fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.required_nodes.matches(&node.name, &node.labels)
}

fn score(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> i64 {
    let terms = cycle.pod.preferred_nodes.iter();
    terms.filter(|(_, t)| t.matches(&node.name, &node.labels)).map(|(weight, _)| weight).sum()
}
