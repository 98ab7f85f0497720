//! LIST of 10,000 pods as JSON: the wall time at the client, and the CPU time that the server's processes use for one.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Plan;
use crate::api::{Api, block_on, create_all};
use crate::machine::{Percentiles, cpu_of, settle};
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{ControlPlane, cell};

const PODS: &str = "/api/v1/namespaces/default/pods";

struct Lists {
    wall: f64,
    cpu: f64,
    megabytes: f64,
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let (pods, lists) = (plan.or_quick(10_000, 300), plan.or_quick(50, 10));
    let ours = {
        let ours = Ours::up()?;
        measure(&ours.api()?, &ours.pids()?, pods, lists)?
    };
    let theirs = cell(ControlPlane::start(&plan.upstream).and_then(|plane| {
        plane.add_default_account()?;
        measure(&plane.api, &plane.pids(), pods, lists)
    }));
    let of = |pick: fn(&Lists) -> f64, unit| theirs.as_ref().map(|l| figure(pick(l), unit)).map_err(Clone::clone);
    let what = format!("LIST of {pods} pods, JSON");
    Ok(vec![
        Row::cost(format!("{what}: server CPU"), "30 ms", figure(ours.cpu, "ms"), of(|l| l.cpu, "ms")),
        Row::cost(format!("{what}: wall, p50"), "", figure(ours.wall, "ms"), of(|l| l.wall, "ms")),
        Row::cost(format!("{what}: size"), "", figure(ours.megabytes, "MB"), of(|l| l.megabytes, "MB")),
    ])
}

fn measure(api: &Api, servers: &[u32], pods: usize, lists: usize) -> Result<Lists> {
    block_on(create_all(api, PODS, pods, pod))?;
    settle(servers)?;
    block_on(async {
        let mut connection = api.connect().await?;
        // The first fills caches on both sides.
        let mut size = connection.request("GET", PODS, b"").await?.ok()?.len();
        let cpu = cpu_of(servers)?;
        let mut times = Vec::new();
        for _ in 0..lists {
            let sent = Instant::now();
            size = connection.request("GET", PODS, b"").await?.ok()?.len();
            times.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
        let cpu = (cpu_of(servers)? - cpu) * 1000.0 / lists as f64;
        Ok(Lists { wall: Percentiles::of(times)?.at(0.5), cpu, megabytes: size as f64 / 1e6 })
    })
}

/// A pod of the usual size, that no scheduler takes.
fn pod(i: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{i:05}"), "labels": {"app": "web", "pod-template-hash": "7c5ddbdf54"}},
        "spec": {"schedulerName": "nobody", "containers": [{
            "name": "web", "image": "example.org/web:1.2.3",
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "LEVEL", "value": "info"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        }]},
    })
}
