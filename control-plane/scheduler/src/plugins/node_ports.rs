//! NodePorts: two pods on one node can't have the same host port.

use std::any::Any;

use facts::ports::conflict;

use crate::framework::{Change, Cycle, Interest, NODES, PODS, Plugin, Verdict, Wake, What};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "NodePorts",
    prepare: |cycle| Interest::when(!cycle.pod.host_ports.is_empty(), false),
    filter: Some(filter),
    wakes: &[Wake::new(NODES, &[What::Added], |_, _| true), Wake::new(PODS, &[What::Removed], frees)],
    ..Plugin::NOTHING
};

fn frees(change: &Change, pod: &PodInfo) -> bool {
    change.object::<PodInfo>().is_some_and(|gone| conflict(&pod.host_ports, &gone.host_ports))
}

fn filter(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> Verdict {
    if conflict(&cycle.pod.host_ports, &node.ports) {
        return Verdict::Unschedulable("node(s) didn't have free ports for the requested pod ports".into());
    }
    Verdict::Fits
}
