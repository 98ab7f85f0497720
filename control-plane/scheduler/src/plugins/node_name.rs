//! NodeName: a pod that names its node goes there or nowhere.

use std::any::Any;

use crate::framework::{Change, Cycle, Interest, NODES, Plugin, Verdict, Wake, What};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "NodeName",
    prepare: |cycle| Interest::when(cycle.pod.node().is_some(), false),
    filter: Some(filter),
    wakes: &[Wake::new(NODES, &[What::Added], is_it)],
    ..Plugin::NOTHING
};

fn is_it(change: &Change, pod: &PodInfo) -> bool {
    change.object::<NodeInfo>().is_some_and(|node| Some(node.name.as_str()) == pod.node())
}

fn filter(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> Verdict {
    if cycle.pod.node().is_some_and(|wanted| wanted != node.name) {
        return Verdict::Unresolvable("node(s) didn't match the requested node name".into());
    }
    Verdict::Fits
}
