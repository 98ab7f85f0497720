//! NodeResourcesFit and NodeResourcesBalancedAllocation: a node must hold what the pod asks for; among those that do,
//! the emptier (LeastAllocated) and the more evenly used one is better.

use std::any::Any;
use std::borrow::Cow;

use crate::framework::{Change, Cycle, Interest, MAX_SCORE, NODES, PODS, Plugin, Verdict, Wake, What};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const FIT: Plugin = Plugin {
    name: "NodeResourcesFit",
    weight: 1,
    prepare: |_| Interest::both(),
    filter: Some(filter),
    score: Some(least_allocated),
    wakes: &[Wake::new(NODES, &[What::Added, What::Updated], has_room), Wake::new(PODS, &[What::Removed], |_, _| true)],
    ..Plugin::NOTHING
};

fn has_room(change: &Change, pod: &PodInfo) -> bool {
    change.object::<NodeInfo>().is_some_and(|node| shortage(pod, node).is_none())
}

pub const BALANCED_ALLOCATION: Plugin = Plugin {
    name: "NodeResourcesBalancedAllocation",
    weight: 1,
    prepare: |cycle| {
        let asks = cycle.pod.requests.milli_cpu > 0 || cycle.pod.requests.memory > 0;
        Interest::when(false, asks)
    },
    score: Some(balanced),
    ..Plugin::NOTHING
};

fn filter(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> Verdict {
    match shortage(cycle.pod, node) {
        None => Verdict::Fits,
        // What the empty node lacks, no leaving pod can give.
        Some(reason) if exceeds_whole_node(cycle.pod, node) => Verdict::Unresolvable(reason),
        Some(reason) => Verdict::Unschedulable(reason),
    }
}

/// What the node has too little of, in upstream's words; several are joined as it joins them.
pub fn shortage(pod: &PodInfo, node: &NodeInfo) -> Option<Cow<'static, str>> {
    let (want, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut short: Vec<Cow<'static, str>> = Vec::new();
    if used.pods + 1 > have.pods {
        short.push("Too many pods".into());
    }
    let plain = [
        ("cpu", want.milli_cpu, have.milli_cpu - used.milli_cpu),
        ("memory", want.memory, have.memory - used.memory),
        ("ephemeral-storage", want.ephemeral_storage, have.ephemeral_storage - used.ephemeral_storage),
    ];
    for (name, want, free) in plain {
        if want > 0 && want > free {
            short.push(format!("Insufficient {name}").into());
        }
    }
    for (name, want) in &want.extended {
        if *want > 0 && *want > have.extended(name) - used.extended(name) {
            short.push(format!("Insufficient {name}").into());
        }
    }
    match short.len() {
        0 => None,
        1 => short.pop(),
        _ => Some(short.join("\n").into()),
    }
}

fn exceeds_whole_node(pod: &PodInfo, node: &NodeInfo) -> bool {
    let (want, have) = (&pod.requests, &node.allocatable);
    want.milli_cpu > have.milli_cpu
        || want.memory > have.memory
        || want.ephemeral_storage > have.ephemeral_storage
        || want.extended.iter().any(|(name, n)| *n > have.extended(name))
}

fn least_allocated(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> i64 {
    let free = |want: i64, used: i64, have: i64| {
        let left = have - used - want;
        if have == 0 || left < 0 { 0 } else { left * MAX_SCORE / have }
    };
    let (want, used, have) = (&cycle.pod.scored, &node.scored, &node.allocatable);
    let cpu = free(want.milli_cpu, used.milli_cpu, have.milli_cpu);
    let memory = free(want.memory, used.memory, have.memory);
    (cpu + memory) / 2
}

fn balanced(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> i64 {
    let share = |want: i64, used: i64, have: i64| {
        if have == 0 { 1.0 } else { (((want + used) as f64) / have as f64).min(1.0) }
    };
    let (want, used, have) = (&cycle.pod.requests, &node.requested, &node.allocatable);
    let cpu = share(want.milli_cpu, used.milli_cpu, have.milli_cpu);
    let memory = share(want.memory, used.memory, have.memory);
    // The standard deviation of two values is half their distance.
    let deviation = (cpu - memory).abs() / 2.0;
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
