//! NodeName: a pod that names its node goes there or nowhere.

use crate::framework::{Change, Cycle, Interest, Normalize, Plugin, Verdict};
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "NodeName",
    weight: 0,
    prepare: |cycle| Interest::when(cycle.pod.node().is_some(), false),
    filter: Some(filter),
    score: None,
    normalize: Normalize::No,
    adjust: None,
    wakes: |change, pod| matches!(change, Change::NodeAdded(n) if Some(n.name.as_str()) == pod.node()),
};

fn filter(cycle: &Cycle, node: &NodeInfo) -> Verdict {
    if cycle.pod.node().is_some_and(|wanted| wanted != node.name) {
        return Verdict::Unresolvable("node(s) didn't match the requested node name".into());
    }
    Verdict::Fits
}
