//! NodeUnschedulable: a cordoned node takes only pods that tolerate its taint.

use std::any::Any;

use facts::taints::{NO_SCHEDULE, tolerated};
use k8s_openapi::api::core::v1::Taint;

use crate::framework::{Change, Cycle, Interest, NODES, Plugin, Verdict, Wake, What};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

const CORDONED: &str = "node.kubernetes.io/unschedulable";

pub const PLUGIN: Plugin = Plugin {
    name: "NodeUnschedulable",
    prepare: |cycle| Interest::when(!goes_anywhere(cycle.pod), false),
    filter: Some(filter),
    wakes: &[Wake::new(NODES, &[What::Added, What::Updated], is_open)],
    ..Plugin::NOTHING
};

fn is_open(change: &Change, _: &PodInfo) -> bool {
    change.object::<NodeInfo>().is_some_and(|node| !node.unschedulable)
}

fn filter(_: Cycle, _: &dyn Any, node: &NodeInfo) -> Verdict {
    if node.unschedulable {
        return Verdict::Unresolvable("node(s) were unschedulable".into());
    }
    Verdict::Fits
}

/// Whether the pod may go where a person sends no more pods. The taint follows the field; between the two the field
/// counts as if it were the taint.
fn goes_anywhere(pod: &PodInfo) -> bool {
    let taint = Taint { key: CORDONED.into(), effect: NO_SCHEDULE.into(), ..Taint::default() };
    tolerated(&taint, &pod.tolerations)
}
