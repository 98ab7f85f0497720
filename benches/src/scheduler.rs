//! The scheduler on 5,000 nodes: the engine alone, which upstream's program can't show, and the whole way through the
//! API, from the first request that creates a pod until a watch shows the last one bound. Theirs runs no controller
//! manager: nothing but etcd, API server and scheduler; ours is a whole cluster.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::pod::PodInfo;
use scheduler::schedule::{Decision, schedule};
use scheduler::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::Plan;
use crate::api::{Api, block_on, create_all};
use crate::machine::settle;
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{ControlPlane, cell};

const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let nodes = plan.or_quick(5_000, 100);
    let (engine_pods, pods) = (plan.or_quick(20_000, 200), plan.or_quick(5_000, 100));
    let alone = engine(nodes, engine_pods)?;
    let ours = {
        let ours = Ours::up()?;
        whole(&ours.api()?, &ours.pids()?, nodes, pods)?
    };
    let theirs = cell(ControlPlane::start(&plan.upstream).and_then(|mut plane| {
        plane.add_scheduler(&plan.upstream)?;
        plane.add_default_account()?;
        whole(&plane.api, &plane.pids(), nodes, pods)
    }));
    let nothing = Err("has no engine to measure alone".to_owned());
    Ok(vec![
        Row::rate(
            format!("scheduler engine, {nodes} nodes, {engine_pods} basic pods"),
            "5,000/s",
            figure(alone, "/s"),
            nothing,
        ),
        Row::rate(
            format!("{pods} pods created and bound through the API, {nodes} nodes"),
            "",
            figure(ours, "/s"),
            theirs.map(|rate| figure(rate, "/s")),
        ),
    ])
}

fn node(i: usize) -> Value {
    let name = format!("node-{i}");
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("z{}", i % 3)}},
        "status": {
            "allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"},
            "capacity": {"cpu": "4", "memory": "32Gi", "pods": "110"},
        },
    })
}

/// A pod that also takes nodes of which no kubelet has spoken.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"tolerations": [{"operator": "Exists"}], "containers": [{"name": "c", "image": "pause",
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]},
    })
}

fn engine(nodes: usize, pods: usize) -> Result<f64> {
    let mut snapshot = Snapshot::default();
    for i in 0..nodes {
        let node: Node = serde_json::from_value(node(i))?;
        snapshot.set_node(&node);
    }
    let template: Pod = serde_json::from_value(pod("p"))?;
    let pods: Vec<Arc<PodInfo>> = (0..pods)
        .map(|i| {
            let mut pod = template.clone();
            pod.metadata.uid = Some(format!("uid-{i}"));
            Arc::new(PodInfo::new(&pod))
        })
        .collect();
    let (began, count) = (Instant::now(), pods.len());
    let mut start = 0;
    for (i, pod) in pods.into_iter().enumerate() {
        let Decision::Bind { node, evaluated, .. } = schedule(&pod, &snapshot, start, i as u64) else { continue };
        start = (start + evaluated) % nodes;
        snapshot.place(pod, &node);
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

fn whole(api: &Api, servers: &[u32], nodes: usize, pods: usize) -> Result<f64> {
    block_on(create_all(api, "/api/v1/nodes", nodes, node))?;
    settle(servers)?;
    block_on(async {
        let mut watch = api.connect().await?;
        watch.watch(&format!("{PODS}?watch=true")).await?;
        let began = Instant::now();
        let (creator, mut rest, mut bound) = (api.clone(), Vec::new(), 0);
        let creating =
            tokio::spawn(async move { create_all(&creator, PODS, pods, |i| pod(&format!("pod-{i}"))).await });
        let mut seen = std::collections::HashSet::new();
        let mut last = String::new();
        while bound < pods {
            let Ok(event) = watch.event(&mut rest).await else {
                // Upstream ends the watch of a reader that it finds slow: as its clients do, go on from there.
                watch = api.connect().await?;
                watch.watch(&format!("{PODS}?watch=true&resourceVersion={last}")).await?;
                rest.clear();
                continue;
            };
            ensure!(event["type"] != "ERROR", "the watch ended with {}", event["object"]);
            if let Some(version) = event["object"]["metadata"]["resourceVersion"].as_str() {
                version.clone_into(&mut last);
            }
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            if event["object"]["spec"]["nodeName"].is_string() && seen.insert(name.to_owned()) {
                bound += 1;
            }
        }
        let took = began.elapsed().as_secs_f64();
        creating.await??;
        Ok(pods as f64 / took)
    })
}
