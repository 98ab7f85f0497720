//! Benchmark: how many basic pods a second the engine places on 5,000 nodes. Called by `cargo xtask bench scheduler`.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::pod::PodInfo;
use scheduler::schedule::{Decision, schedule};
use scheduler::snapshot::Snapshot;
use serde_json::json;

const NODES: usize = 5_000;
const PODS: usize = 20_000;

fn main() {
    let mut snapshot = Snapshot::default();
    for i in 0..NODES {
        let name = format!("node-{i}");
        let node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("z{}", i % 3)}},
            "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
        });
        let node: Node = serde_json::from_value(node).expect("a node");
        snapshot.set_node(&node);
    }
    let template = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]},
    });
    let template: Pod = serde_json::from_value(template).expect("a pod");
    let pods: Vec<Arc<PodInfo>> = (0..PODS)
        .map(|i| {
            let mut pod = template.clone();
            pod.metadata.uid = Some(format!("uid-{i}"));
            Arc::new(PodInfo::new(Arc::new(pod)))
        })
        .collect();
    let began = Instant::now();
    let mut start = 0;
    for (i, pod) in pods.into_iter().enumerate() {
        let Decision::Bind { node, evaluated, .. } = schedule(&pod, &snapshot, start, i as u64) else { continue };
        start = (start + evaluated) % NODES;
        snapshot.place(pod, &node);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("| scheduler engine, {NODES} nodes, {PODS} basic pods | {:.0} pods/s |", PODS as f64 / seconds);
}
