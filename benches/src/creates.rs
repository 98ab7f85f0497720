//! Durable creates a second: ConfigMaps of 1 KiB by 64 light clients (JSON) and by 64 of client-go (protobuf), each
//! client on a connection of its own, as fast as they are answered, for a fixed time.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Plan;
use crate::api::{Api, block_on};
use crate::machine::Percentiles;
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{ControlPlane, Scratch, cell};

const CLIENTS: usize = 64;
const VALUE: usize = 1024;

/// Creates a second and their latencies in milliseconds.
struct Rates {
    rate: f64,
    p50: f64,
    p99: f64,
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let time = Duration::from_secs(plan.or_quick(10, 2));
    let scratch = Scratch::new("client-go")?;
    let go = build_client_go(&scratch);
    let both = |api: &Api| -> Result<(Rates, Result<Rates>)> {
        let light = block_on(light(api, time))?;
        let go = go.as_ref().map_err(|e| anyhow::anyhow!("{e:#}")).and_then(|program| client_go(program, api, time));
        Ok((light, go))
    };
    let ours = {
        let ours = Ours::up()?;
        both(&ours.api()?)?
    };
    let theirs = ControlPlane::start(&plan.upstream).and_then(|plane| both(&plane.api));
    let (light, go) = match theirs {
        Ok((light, go)) => (Ok(light), go),
        Err(error) => (Err(anyhow::anyhow!("{error:#}")), Err(error)),
    };
    let mut rows = rows("64 light clients (HTTP/1.1, JSON)", "10,000/s", &ours.0, light);
    match ours.1 {
        Ok(of_go) => rows.extend(self::rows("64 clients of client-go (HTTP/2, protobuf)", "6,000/s", &of_go, go)),
        Err(error) => eprintln!("creates by client-go not taken: {error:#}"),
    }
    Ok(rows)
}

fn rows(who: &str, goal: &str, ours: &Rates, theirs: Result<Rates>) -> Vec<Row> {
    let theirs = cell(theirs);
    let of = |pick: fn(&Rates) -> f64, unit| theirs.as_ref().map(|r| figure(pick(r), unit)).map_err(Clone::clone);
    vec![
        Row::rate(format!("durable creates, {who}"), goal, figure(ours.rate, "/s"), of(|r| r.rate, "/s")),
        Row::cost(format!("p50 of {who}"), "", figure(ours.p50, "ms"), of(|r| r.p50, "ms")),
        Row::cost(format!("p99 of {who}"), "", figure(ours.p99, "ms"), of(|r| r.p99, "ms")),
    ]
}

async fn light(api: &Api, time: Duration) -> Result<Rates> {
    let value = "x".repeat(VALUE);
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(api.connect().await?);
    }
    let began = Instant::now();
    let clients = connections.into_iter().enumerate().map(|(client, mut connection)| {
        let value = value.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let name = format!("light-{client}-{}", times.len());
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                    "data": {"value": value}});
                let sent = Instant::now();
                let path = "/api/v1/namespaces/default/configmaps";
                connection.request("POST", path, map.to_string().as_bytes()).await?.ok()?;
                times.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            Ok::<_, anyhow::Error>(times)
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    let times = Percentiles::of(times)?;
    Ok(Rates { rate, p50: times.at(0.5), p99: times.at(0.99) })
}

/// Builds the program beside this crate with the Go toolchain; its modules come from the module proxy.
fn build_client_go(scratch: &Scratch) -> Result<PathBuf> {
    let program = scratch.path("client-go");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(".");
    go.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/client-go"));
    testkit::output(&mut go, "").context("not taken: no Go toolchain")?.ok()?;
    Ok(program)
}

fn client_go(program: &PathBuf, api: &Api, time: Duration) -> Result<Rates> {
    let mut command = Command::new(program);
    command.arg("-kubeconfig").arg(&api.kubeconfig);
    command.args(["-clients", &CLIENTS.to_string(), "-seconds", &time.as_secs().to_string()]);
    let said: Value = serde_json::from_str(&testkit::output(&mut command, "")?.ok()?)?;
    let number = |name: &str| said[name].as_f64().with_context(|| format!("client-go said {said}"));
    Ok(Rates { rate: number("rate")?, p50: number("p50")?, p99: number("p99")? })
}
