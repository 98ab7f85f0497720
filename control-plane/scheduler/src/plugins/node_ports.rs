//! NodePorts: two pods on one node can't have the same host port.

use crate::framework::{Change, Cycle, Interest, Normalize, Plugin, Verdict};
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "NodePorts",
    weight: 0,
    prepare: |cycle| Interest::when(!cycle.pod.host_ports.is_empty(), false),
    filter: Some(filter),
    score: None,
    normalize: Normalize::No,
    adjust: None,
    wakes: |change, pod| match change {
        Change::NodeAdded(_) => true,
        Change::PodRemoved(gone) => gone.host_ports.iter().any(|p| pod.host_ports.iter().any(|q| p.conflicts(q))),
        _ => false,
    },
};

fn filter(cycle: &Cycle, node: &NodeInfo) -> Verdict {
    let taken = cycle.pod.host_ports.iter().any(|wanted| node.ports.iter().any(|used| used.conflicts(wanted)));
    if taken {
        return Verdict::Unschedulable("node(s) didn't have free ports for the requested pod ports".into());
    }
    Verdict::Fits
}
