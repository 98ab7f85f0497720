//! Laws that hold for any cluster: no node is overcommitted, the same question has the same answer, and taking a pod
//! away leaves no trace in the sums.

use proptest::prelude::*;
use serde_json::json;

use super::{asking, cluster, node};
use crate::schedule::{Decision, schedule};

proptest! {
    #[test]
    fn nodes_are_never_overcommitted(cpus in prop::collection::vec(1u32..5000, 1..60), seed: u64) {
        let mut nodes = cluster(&[node("a", json!({})), node("b", json!({})), node("c", json!({}))]);
        for (i, cpu) in cpus.iter().enumerate() {
            let pod = asking(&format!("p{i}"), &format!("{cpu}m"));
            let first = schedule(&pod, &nodes, i, seed);
            prop_assert_eq!(&first, &schedule(&pod, &nodes, i, seed));
            if let Decision::Bind { node, .. } = first {
                nodes.place(pod, &node);
            }
        }
        for node in nodes.nodes() {
            prop_assert!(node.requested.milli_cpu <= node.allocatable.milli_cpu);
            prop_assert!(node.requested.pods <= node.allocatable.pods);
        }
        let uids: Vec<String> = nodes.nodes().flat_map(|n| n.pods.iter().map(|p| p.uid.clone())).collect();
        for uid in uids {
            nodes.displace(&uid);
        }
        for node in nodes.nodes() {
            prop_assert_eq!(&node.requested, &Default::default());
            prop_assert_eq!(&node.scored, &Default::default());
        }
    }
}
