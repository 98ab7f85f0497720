//! Warm pod start: pods one by one, from the request that creates one until a watch shows it Ready. The image is there.
//! Theirs is the whole of upstream with containerd and runc; where that can't run, the figure recorded earlier on the
//! development machine stands in its place and says so.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Plan;
use crate::api::{Api, block_on};
use crate::machine::Percentiles;
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{ControlPlane, Node, cell};

const IMAGE: &str = "example.org/bench:1";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Upstream 1.37.2 with containerd 2 on the 2-core development machine.
const RECORDED: [f64; 2] = [568.0, 700.0];

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let pods = plan.or_quick(30, 3);
    let ours = {
        let ours = Ours::up()?;
        ours.cluster.import_busybox(IMAGE)?;
        block_on(measure(&ours.api()?, pods))?
    };
    let theirs = cell(of_upstream(plan, pods));
    let row = |what: &str, goal: &str, share: f64, recorded: f64| {
        let of = theirs.as_ref().map(|t| figure(t.at(share), "ms"));
        let of = of.map_err(|why| format!("{recorded} ms recorded earlier ({why})"));
        Row::cost(format!("warm pod start, one by one, {pods} pods, {what}"), goal, figure(ours.at(share), "ms"), of)
    };
    Ok(vec![row("p50", "100 ms", 0.5, RECORDED[0]), row("p99", "", 0.99, RECORDED[1])])
}

fn of_upstream(plan: &Plan, pods: usize) -> Result<Percentiles> {
    let mut plane = ControlPlane::start(&plan.upstream)?;
    plane.add_controllers(&plan.upstream)?;
    let node = Node::start(&plan.upstream, &plane)?;
    let archive = plane.dir.path("busybox.tar");
    testkit::image::busybox_archive(&archive, IMAGE)?;
    node.import(&archive)?;
    block_on(measure(&plane.api, pods))
}

async fn measure(api: &Api, pods: usize) -> Result<Percentiles> {
    let mut times = Vec::new();
    // The first pod makes what later ones find: links, groups, code in memory.
    for i in 0..=pods {
        let took = one(api, &format!("start-{i}")).await?;
        if i > 0 {
            times.push(took);
        }
    }
    Percentiles::of(times)
}

/// Creates a pod, waits until it is Ready, and removes it; the milliseconds until Ready.
async fn one(api: &Api, name: &str) -> Result<f64> {
    let mut watch = api.connect().await?;
    watch.watch(&format!("{PODS}?watch=true&fieldSelector=metadata.name%3D{name}")).await?;
    let mut connection = api.connect().await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sleep", "3600"]}]},
    });
    let created = Instant::now();
    connection.request("POST", PODS, pod.to_string().as_bytes()).await?.ok()?;
    let mut rest = Vec::new();
    while !is_ready(&watch.event(&mut rest).await?["object"]) {}
    let took = created.elapsed().as_secs_f64() * 1000.0;
    connection.request("DELETE", &format!("{PODS}/{name}"), b"").await?.ok()?;
    while watch.event(&mut rest).await?["type"] != "DELETED" {}
    Ok(took)
}

/// Whether a pod or node has the condition Ready.
pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
