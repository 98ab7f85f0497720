//! A cluster full of operators: 816 CustomResourceDefinitions of 90 MB from the first POST until all are served, the
//! memory they take, what discovery and OpenAPI cost then, and the next start. Theirs is etcd, the API server and the
//! controllers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Plan;
use crate::api::{Api, block_on, post_all};
use crate::definitions::{DEFINITIONS, definition, group};
use crate::machine::{cpu_of, rss_of, settle};
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{ControlPlane, cell};

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Upstream takes a minute for all; ours took longer than this before.
const PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(100);

struct Figures {
    served: f64,
    cpu: f64,
    rss: f64,
    discovery: f64,
    index: f64,
    document: f64,
    v2: f64,
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let count = plan.or_quick(DEFINITIONS, 60);
    let bodies: Arc<Vec<Vec<u8>>> = Arc::new((0..count).map(|i| definition(i).to_string().into_bytes()).collect());
    let megabytes = bodies.iter().map(Vec::len).sum::<usize>() as f64 / 1e6;
    let cluster = Ours::up()?;
    let ours = measure(&cluster.api()?, &cluster.pids()?, &bodies)?;
    let (next, next_rss) = again(&cluster, count)?;
    drop(cluster);
    let theirs = cell(ControlPlane::start(&plan.upstream).and_then(|mut plane| {
        plane.add_controllers(&plan.upstream)?;
        measure(&plane.api, &plane.pids(), &bodies)
    }));
    let of = |pick: fn(&Figures) -> f64, unit| theirs.as_ref().map(|f| figure(pick(f), unit)).map_err(Clone::clone);
    let row = |what: &str, goal: &str, pick: fn(&Figures) -> f64, unit| {
        Row::cost(what, goal, figure(pick(&ours), unit), of(pick, unit))
    };
    let what = format!("{count} CRDs of {megabytes:.0} MB, 32 clients: until all are served");
    let unmeasured = || Err("not started again".to_owned());
    Ok(vec![
        row(&what, "15 s", |f| f.served, "s"),
        row("CPU of the servers for that", "", |f| f.cpu, "s"),
        row("RSS with them", "400 MB", |f| f.rss, "MB"),
        row("aggregated discovery of all", "", |f| f.discovery, "ms"),
        row("OpenAPI v3: the index", "", |f| f.index, "ms"),
        row("OpenAPI v3: a group of 8 kinds", "", |f| f.document, "ms"),
        row("OpenAPI v2 of all", "", |f| f.v2, "ms"),
        Row::cost("the next `up`", "2 s", figure(next, "s"), unmeasured()),
        Row::cost("RSS after it", "400 MB", figure(next_rss, "MB"), unmeasured()),
    ])
}

fn measure(api: &Api, servers: &[u32], bodies: &Arc<Vec<Vec<u8>>>) -> Result<Figures> {
    settle(servers)?;
    let (cpu, began) = (cpu_of(servers)?, Instant::now());
    let all = bodies.clone();
    block_on(async {
        post_all(api, PATH, bodies.len(), move |i| all[i].clone()).await?;
        all_served(api, bodies.len()).await
    })?;
    let served = began.elapsed().as_secs_f64();
    let cpu = cpu_of(servers)? - cpu;
    settle(servers)?;
    let rss = rss_of(servers)?;
    let timed = |path: &str, accept: &'static str| -> Result<f64> {
        block_on(async {
            let sent = Instant::now();
            let answer = api.connect().await?.asking(accept).request("GET", path, b"").await?.ok()?;
            ensure!(!answer.is_empty(), "{path} is empty");
            Ok(sent.elapsed().as_secs_f64() * 1000.0)
        })
    };
    let document = format!("/openapi/v3/apis/{}/v1", group(0));
    Ok(Figures {
        served,
        cpu,
        rss,
        discovery: timed("/apis", AGGREGATED)?,
        index: timed("/openapi/v3", "application/json")?,
        document: timed(&document, "application/json")?,
        v2: timed("/openapi/v2", "application/json")?,
    })
}

/// Waits until discovery has every definition.
async fn all_served(api: &Api, count: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut connection = api.connect().await?.asking(AGGREGATED);
    loop {
        let found = connection.request("GET", "/apis", b"").await?.ok()?;
        let found: Value = serde_json::from_slice(&found)?;
        let served = count_of_bench(&found);
        if served == count {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{served} of {count} definitions are served after {PATIENCE:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Resources of our groups, each once.
fn count_of_bench(discovery: &Value) -> usize {
    let ours = |group: &&Value| group["metadata"]["name"].as_str().is_some_and(|n| n.ends_with(".bench.example.com"));
    let groups = discovery["items"].as_array().into_iter().flatten().filter(ours);
    let v1 = groups.flat_map(|group| group["versions"].as_array().into_iter().flatten().find(|v| v["version"] == "v1"));
    v1.map(|version| version["resources"].as_array().map_or(0, Vec::len)).sum()
}

/// Seconds of the next `up` with everything served after it, and the memory then.
fn again(ours: &Ours, count: usize) -> Result<(f64, f64)> {
    ours.cluster.run(&["down"])?.ok().context("down")?;
    let began = Instant::now();
    ours.cluster.up()?;
    let api = ours.api()?;
    block_on(all_served(&api, count))?;
    let took = began.elapsed().as_secs_f64();
    let pids = ours.pids()?;
    settle(&pids)?;
    Ok((took, rss_of(&pids)?))
}
