//! TaintToleration: no pod on a node whose NoSchedule or NoExecute taint it doesn't tolerate; fewer untolerated
//! PreferNoSchedule taints are better.

use std::any::Any;

use facts::taints::{self, NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, tolerated};
use k8s_openapi::api::core::v1::Taint;

use crate::framework::{Change, Cycle, Interest, NODES, Normalize, Plugin, Verdict, Wake, What};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "TaintToleration",
    weight: 3,
    prepare: |_| Interest::both(),
    filter: Some(filter),
    score: Some(score),
    normalize: Normalize::Down,
    wakes: &[Wake::new(NODES, &[What::Added, What::Updated], takes)],
    ..Plugin::NOTHING
};

fn takes(change: &Change, pod: &PodInfo) -> bool {
    change.object::<NodeInfo>().is_some_and(|node| untolerated(pod, node).is_none())
}

fn filter(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> Verdict {
    match untolerated(cycle.pod, node) {
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or("");
            Verdict::Unresolvable(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key).into())
        }
        None => Verdict::Fits,
    }
}

/// The first taint that keeps the pod away.
pub fn untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo) -> Option<&'a Taint> {
    taints::untolerated(&node.taints, &[NO_SCHEDULE, NO_EXECUTE], &pod.tolerations)
}

fn score(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> i64 {
    let soft = node.taints.iter().filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
    soft.filter(|taint| !tolerated(taint, &cycle.pod.tolerations)).count() as i64
}
