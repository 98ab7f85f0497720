//! Measures any etcd endpoint over gRPC: `bench URL [PID] [PHASE...]`; with the server's PID (0: none) its memory and
//! CPU time too. A phase is `put|get|range|create:CALLERS:TOTAL`. The default: puts of 1 KiB by 1, 100 and 1,000
//! callers on 230,000 keys, then reads and create transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};
use wire::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcd::kv_client::KvClient;
use wire::etcd::request_op::Request;
use wire::etcd::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};

const KEYS: u64 = 230_000;
const VALUE: usize = 1024;

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Get,
    Range,
    Create,
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("/registry/bench/namespace/{n:012}"))
}

async fn call(
    client: &mut KvClient<Channel>,
    kind: Kind,
    n: u64,
    random: u64,
    value: &Bytes,
) -> Result<(), tonic::Status> {
    match kind {
        Kind::Put => {
            let at = (random as usize) % VALUE;
            let request =
                PutRequest { key: key(random % KEYS), value: value.slice(at..at + VALUE), ..Default::default() };
            client.put(request).await.map(drop)
        }
        Kind::Get => client.range(RangeRequest { key: key(random % KEYS), ..Default::default() }).await.map(drop),
        Kind::Range => {
            let range = RangeRequest {
                key: key(random % KEYS),
                range_end: Bytes::from_static(b"\0"),
                limit: 500,
                ..Default::default()
            };
            client.range(range).await.map(drop)
        }
        Kind::Create => {
            let key = Bytes::from(format!("/registry/created/namespace/{n:012}"));
            let absent = Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: key.clone(),
                target_union: Some(TargetUnion::ModRevision(0)),
                ..Default::default()
            };
            let put = PutRequest { key: key.clone(), value: value.slice(..VALUE), ..Default::default() };
            let op = |request| vec![RequestOp { request: Some(request) }];
            let txn = TxnRequest {
                compare: vec![absent],
                success: op(Request::RequestPut(put)),
                failure: op(Request::RequestRange(RangeRequest { key, ..Default::default() })),
            };
            client.txn(txn).await.map(drop)
        }
    }
}

async fn phase(
    url: &str,
    name: &str,
    kind: Kind,
    callers: u64,
    total: u64,
    value: &Bytes,
) -> Result<(), Box<dyn std::error::Error>> {
    let channel = Endpoint::from_shared(url.to_owned())?
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .tcp_nodelay(true)
        .connect()
        .await?;
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (next, value) = (next.clone(), value.clone());
            let mut client = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= total {
                        return Ok::<_, tonic::Status>(times);
                    }
                    // A scrambled sequence: the same keys for every server.
                    let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                    let begun = Instant::now();
                    call(&mut client, kind, n, random, &value).await?;
                    times.push(begun.elapsed());
                }
            })
        })
        .collect();
    let mut times: Vec<Duration> = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let took = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{name:<22} {callers:>5} callers  {:>8.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms",
        total as f64 / took,
        at(0.5),
        at(0.99)
    );
    Ok(())
}

fn server(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(format!("RSS {}, anonymous {}, CPU {:.1} s", field("VmRSS:")?, field("RssAnon:")?, ticks / 100.0))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("bench URL [PID]")?;
    let pid = args.next();
    let note = || pid.as_deref().and_then(server).into_iter().for_each(|s| println!("  server: {s}"));
    let mut seed = 1_u64;
    let value: Vec<u8> = (0..2 * VALUE)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect();
    let value = Bytes::from(value);
    note();
    let mut phases: Vec<String> = args.collect();
    if phases.is_empty() {
        let all =
            ["put:1:10000", "put:100:100000", "put:1000:180000", "get:100:50000", "range:16:500", "create:100:50000"];
        phases = all.map(str::to_owned).to_vec();
    }
    for text in phases {
        let mut parts = text.split(':');
        let (name, kind) = match parts.next() {
            Some("put") => ("put 1 KiB", Kind::Put),
            Some("get") => ("get", Kind::Get),
            Some("range") => ("range of 500 keys", Kind::Range),
            Some("create") => ("create transaction", Kind::Create),
            _ => return Err("a phase is put|get|range|create:CALLERS:TOTAL".into()),
        };
        let mut number = || parts.next().and_then(|n| n.parse().ok()).ok_or("a phase needs CALLERS and TOTAL");
        phase(&url, name, kind, number()?, number()?, &value).await?;
        note();
    }
    Ok(())
}
