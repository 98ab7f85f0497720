//! What objects cost in memory: 5,000 nodes and 20,000 pods bound to them, with everything that follows them. Ours is
//! a whole cluster in one process; theirs is API server, controller manager and scheduler, without etcd. Then all are
//! deleted, and what is still held is looked at. Each state is looked at twice: at once, while our store still has what each
//! object was before, and when that history is compacted, which takes a store five to ten minutes and ours here one.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::Plan;
use crate::api::{Api, block_on, create_all};
use crate::machine::{rss_of, settle};
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{ControlPlane, cell};

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";
const EVENTS: &str = "/api/v1/namespaces/default/events";
/// Until every pod is bound: upstream's scheduler takes some minutes.
const PATIENCE: Duration = Duration::from_secs(900);
/// What was freed goes back to the kernel a while later, in theirs and in ours.
const GIVEN_BACK: Duration = Duration::from_secs(30);

/// How often ours compacts here, and when what was written before has been: the second time forgets what the first saw.
const COMPACTS: &str = "etcd-compaction-interval=30s";
const COMPACTED: Duration = Duration::from_secs(75);

/// Requests that may end at the server's timeout before a collection is empty.
const DELETIONS: usize = 20;

/// Megabytes resident: with nothing, with everything, and when it is gone again; of the last two at once and later.
struct Memory {
    before: f64,
    with: [f64; 2],
    after: [f64; 2],
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let (nodes, pods) = (plan.or_quick(5_000, 50), plan.or_quick(20_000, 200));
    let ours = {
        let ours = Ours::fresh()?;
        ours.cluster.run(&["up", "--kube-apiserver-arg", COMPACTS])?.ok()?;
        measure(&ours.api()?, &ours.pids()?, nodes, pods)?
    };
    let theirs = cell(ControlPlane::start(&plan.upstream).and_then(|mut plane| {
        plane.add_controllers(&plan.upstream)?;
        measure(&plane.api, &plane.pids_without_etcd(), nodes, pods)
    }));
    let of = |pick: fn(&Memory) -> f64| theirs.as_ref().map(|m| figure(pick(m), "MB")).map_err(Clone::clone);
    let goal = format!("{:.0} MB", ours.before * 1.2);
    Ok(vec![
        Row::cost("RSS with nothing in the store", "", figure(ours.before, "MB"), of(|m| m.before)),
        Row::cost(
            format!("RSS with {pods} pods on {nodes} nodes, at once"),
            "",
            figure(ours.with[0], "MB"),
            of(|m| m.with[0]),
        ),
        Row::cost("the same, history compacted", "300 MB", figure(ours.with[1], "MB"), of(|m| m.with[1])),
        Row::cost("RSS when they are deleted, at once", "", figure(ours.after[0], "MB"), of(|m| m.after[0])),
        Row::cost("the same, history compacted", &goal, figure(ours.after[1], "MB"), of(|m| m.after[1])),
    ])
}

fn measure(api: &Api, servers: &[u32], nodes: usize, pods: usize) -> Result<Memory> {
    settle(servers)?;
    let before = rss_of(servers)?;
    block_on(create_all(api, NODES, nodes, node))?;
    block_on(create_all(api, PODS, pods, pod))?;
    let began = Instant::now();
    while block_on(unbound(api))? > 0 {
        ensure!(began.elapsed() < PATIENCE, "not every pod is bound after {PATIENCE:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    let with = twice(servers)?;
    block_on(async {
        delete_all(api, PODS, r#"{"gracePeriodSeconds": 0}"#).await?;
        delete_all(api, EVENTS, "{}").await?;
        delete_all(api, &format!("{NODES}?labelSelector=bench%3Dmemory"), "{}").await
    })?;
    Ok(Memory { before, with, after: twice(servers)? })
}

/// What is resident soon after a change, and when history has been compacted.
fn twice(servers: &[u32]) -> Result<[f64; 2]> {
    settle(servers)?;
    std::thread::sleep(GIVEN_BACK);
    let soon = rss_of(servers)?;
    std::thread::sleep(COMPACTED);
    Ok([soon, rss_of(servers)?])
}

/// Deletes a collection: one request may not have the time for all of it.
async fn delete_all(api: &Api, path: &str, options: &str) -> Result<()> {
    for _ in 0..DELETIONS {
        if api.once("DELETE", path, options).await?.ok().is_ok() {
            return Ok(());
        }
    }
    bail!("{path} is not empty after {DELETIONS} deletions")
}

/// How many pods have no node.
async fn unbound(api: &Api) -> Result<u64> {
    let list = api.once("GET", &format!("{PODS}?fieldSelector=spec.nodeName%3D&limit=1"), "").await?.ok()?;
    let list: Value = serde_json::from_slice(&list)?;
    let first = list["items"].as_array().map_or(0, Vec::len) as u64;
    Ok(first + list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0))
}

/// A node as a kubelet of a large cluster reports it.
fn node(i: usize) -> Value {
    let name = format!("node-{i:05}");
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": format!("kubelet says {reason}"),
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let image = |n: usize| {
        json!({"names": [format!("registry.example.org/team/app-{n}@sha256:{:064x}", n), format!("registry.example.org/team/app-{n}:v1.{n}")],
            "sizeBytes": 52_428_800 + n})
    };
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"bench": "memory", "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("z{}", i % 3)}},
        "spec": {"podCIDR": format!("10.{}.{}.0/24", 128 + i / 256, i % 256)},
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"},
            "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"},
            "conditions": [condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady")],
            "addresses": [{"type": "InternalIP", "address": format!("10.0.{}.{}", i / 256, i % 256)},
                {"type": "Hostname", "address": name}],
            "images": (0..10).map(image).collect::<Vec<_>>(),
            "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6.18.0",
                "osImage": "Debian GNU/Linux 13", "containerRuntimeVersion": "containerd://2.1.0",
                "kubeletVersion": "v1.37.2", "kubeProxyVersion": "", "operatingSystem": "linux",
                "architecture": "amd64"},
        },
    })
}

/// A pod of the usual size, for a node without a kubelet: nothing may evict it.
fn pod(i: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-7c5ddbdf54-{i:05}"), "namespace": "default",
            "labels": {"app": "web", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7c5ddbdf54"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}},
        "spec": {
            "nodeSelector": {"bench": "memory"},
            "tolerations": [{"operator": "Exists"}],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}, {"name": "cache", "emptyDir": {}}],
            "containers": [{
                "name": "web", "image": "registry.example.org/team/web:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "LEVEL", "value": "info"},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}, {"name": "cache", "mountPath": "/cache"}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 20},
            }],
        },
    })
}
