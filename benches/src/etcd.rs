//! Durable puts of 1 KiB at 1, 100 and 1,000 callers over gRPC, and the memory after them: `ferrokube etcd` and etcd
//! 3.7.3, each alone with the clients, both on the same disk.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};
use wire::etcd::PutRequest;
use wire::etcd::kv_client::KvClient;

use crate::Plan;
use crate::api::block_on;
use crate::machine::{Percentiles, rss};
use crate::table::{Row, figure};
use crate::upstream::{Process, Scratch, cell};

const KEYS: u64 = 230_000;
const VALUE: usize = 1024;
/// Callers and puts: a trial makes a hundredth of the puts.
const PHASES: [(u64, u64); 3] = [(1, 10_000), (100, 100_000), (1000, 180_000)];
const URL: &str = "http://127.0.0.1:17379";
const PEERS: &str = "http://127.0.0.1:17380";
const PATIENCE: Duration = Duration::from_secs(20);

/// Puts a second and their median in ms, phase by phase; memory in MB at the end.
struct Puts {
    phases: Vec<(f64, f64)>,
    rss: f64,
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let ours = measure(plan, &testkit::cluster::binary(), &["etcd"])?;
    let theirs = cell(plan.upstream.program("etcd").and_then(|etcd| {
        let peers = ["--listen-peer-urls", PEERS, "--initial-advertise-peer-urls", PEERS, "--initial-cluster"];
        measure(plan, &etcd, &[&peers[..], &[&format!("default={PEERS}")]].concat())
    }));
    let mut rows = Vec::new();
    for (i, (callers, _)) in PHASES.iter().enumerate() {
        let of = |pick: fn(&(f64, f64)) -> f64, unit| {
            theirs.as_ref().map(|t| figure(pick(&t.phases[i]), unit)).map_err(Clone::clone)
        };
        let (rate, p50) = ours.phases[i];
        let what = format!("etcd puts of 1 KiB, {callers} callers");
        rows.push(Row::rate(&what, "2×", figure(rate, "/s"), of(|p| p.0, "/s")));
        rows.push(Row::cost(format!("{what}: p50"), "", figure(p50, "ms"), of(|p| p.1, "ms")));
    }
    let puts: u64 = PHASES.iter().map(|(_, puts)| plan.or_quick(*puts, puts / 100)).sum();
    let rss = theirs.as_ref().map(|t| figure(t.rss, "MB")).map_err(Clone::clone);
    let disk = disk(plan.or_quick(500, 50))?;
    let same = Err("the same disk".to_owned());
    rows.push(Row::cost("the disk alone: 2 KiB written and synced, p50", "", figure(disk, "ms"), same));
    rows.push(Row::cost(format!("etcd RSS after {puts} puts on {KEYS} keys"), "2×", figure(ours.rss, "MB"), rss));
    Ok(rows)
}

fn measure(plan: &Plan, program: &PathBuf, args: &[&str]) -> Result<Puts> {
    let dir = Scratch::new("etcd")?;
    let mut command = Command::new(program);
    command.args(args).arg("--data-dir").arg(dir.path("data"));
    command.args(["--listen-client-urls", URL, "--advertise-client-urls", URL]);
    let server = Process::start(&mut command, &dir.0, "etcd")?;
    testkit::eventually(PATIENCE, || block_on(connect()).map(drop))
        .map_err(|e| e.context(log(&dir.path("etcd.log"))))?;
    let mut phases = Vec::new();
    for (callers, puts) in PHASES {
        phases.push(block_on(phase(callers, plan.or_quick(puts, puts / 100)))?);
    }
    Ok(Puts { phases, rss: rss(server.pid())? })
}

/// Milliseconds of a write that is synced, into a file that was filled before: nobody who syncs is quicker.
fn disk(writes: usize) -> Result<f64> {
    const RECORD: usize = 2048;
    let dir = Scratch::new("disk")?;
    let mut file = File::create(dir.path("file"))?;
    file.write_all(&vec![1; writes * RECORD])?;
    file.sync_all()?;
    let mut times = Vec::new();
    for i in 0..writes {
        let began = Instant::now();
        file.write_all_at(&[2; RECORD], (i * RECORD) as u64)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(Percentiles::of(times)?.at(0.5))
}

fn log(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next_back().unwrap_or("it said nothing").to_owned()
}

async fn connect() -> Result<Channel> {
    let endpoint = Endpoint::from_static(URL).initial_stream_window_size(1 << 20).tcp_nodelay(true);
    Ok(endpoint.initial_connection_window_size(16 << 20).connect().await?)
}

/// Puts by so many callers on one connection.
async fn phase(callers: u64, total: u64) -> Result<(f64, f64)> {
    let channel = connect().await?;
    let (next, noise) = (Arc::new(AtomicU64::new(0)), noise());
    let began = Instant::now();
    let tasks = (0..callers).map(|_| {
        let (next, noise, mut client) = (next.clone(), noise.clone(), KvClient::new(channel.clone()));
        tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= total {
                    return anyhow::Ok(times);
                }
                // A scrambled sequence: the same keys and values for every server.
                let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                let at = (random as usize) % VALUE;
                let key = Bytes::from(format!("/registry/bench/namespace/{:012}", random % KEYS));
                let sent = Instant::now();
                client.put(PutRequest { key, value: noise.slice(at..at + VALUE), ..Default::default() }).await?;
                times.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    Ok((total as f64 / began.elapsed().as_secs_f64(), Percentiles::of(times)?.at(0.5)))
}

/// Bytes that don't compress: values are windows of it.
fn noise() -> Bytes {
    let next = |seed: &u64| Some(seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(Some(1_u64), next).map(|seed| (seed >> 56) as u8).take(2 * VALUE).collect()
}
