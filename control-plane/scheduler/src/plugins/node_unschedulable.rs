//! NodeUnschedulable: a cordoned node takes only pods that tolerate its taint.

use crate::framework::{Change, Cycle, Interest, Normalize, Plugin, Verdict};
use crate::plugins::taint_toleration::tolerates_key;
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "NodeUnschedulable",
    weight: 0,
    prepare: |_| Interest::FILTER,
    filter: Some(filter),
    score: None,
    normalize: Normalize::No,
    adjust: None,
    wakes: |change, _| matches!(change, Change::NodeAdded(n) | Change::NodeUpdated(n) if !n.unschedulable),
};

fn filter(cycle: &Cycle, node: &NodeInfo) -> Verdict {
    if node.unschedulable && !tolerated(cycle.pod) {
        return Verdict::Unresolvable("node(s) were unschedulable".into());
    }
    Verdict::Fits
}

fn tolerated(pod: &PodInfo) -> bool {
    tolerates_key(pod, "node.kubernetes.io/unschedulable", "", "NoSchedule")
}
