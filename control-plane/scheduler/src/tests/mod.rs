//! What the engine must do, as tables: each test builds a small cluster and asks where a pod goes and why.

mod decisions;
mod laws;
mod plugins;
mod snapshot;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::pod::PodInfo;
use crate::schedule::{Decision, schedule};
use crate::snapshot::Snapshot;

pub fn node(name: &str, change: Value) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    merge(&mut node, change);
    serde_json::from_value(node).expect("a node")
}

pub fn pod(name: &str, change: Value) -> Arc<PodInfo> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    merge(&mut pod, change);
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    Arc::new(PodInfo::new(&pod))
}

pub fn asking(name: &str, cpu: &str) -> Arc<PodInfo> {
    pod(name, json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

pub fn cluster(nodes: &[Node]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|n| snapshot.set_node(n));
    snapshot
}

/// The node's name, or why not.
pub fn decide(snapshot: &Snapshot, pod: &PodInfo) -> String {
    match schedule(pod, snapshot, 0, 1) {
        Decision::Bind { node, .. } => node,
        Decision::Unschedulable(error) => error.to_string(),
    }
}
