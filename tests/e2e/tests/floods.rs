//! Connections that say nothing, by the ten thousand, to every port that the cluster listens on: kubectl goes on
//! answering. The attackers are processes of their own, this program once more: one has not enough descriptors.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::Cluster;
use testkit::runner::Test;

pub const TESTS: &[Test] = &[("silent_connections_to_any_port_leave_kubectl_answering", silent)];

/// How this program is called as an attacker.
pub const ATTACKER: &str = "hold-silent-connections";
const ATTACKERS: usize = 2;
/// Connections of each attacker: together more than the largest port's share of 20,000 descriptors.
const EACH: usize = 4_000;
/// The same in the long tests: nearly all the descriptors that a process has. Where a port closes most of them, local
/// ports run short, and the kernel takes a minute to find the last ones.
const EACH_OF_MANY: usize = 9_900;
/// What the attack may cost one call.
const COST: Duration = Duration::from_millis(100);

fn each() -> usize {
    if testkit::full() { EACH_OF_MANY } else { EACH }
}

/// The attacker: connects, says that it has, and holds on until its input ends.
pub fn attack(address: &str) {
    let Ok(address) = address.parse::<SocketAddr>() else { return };
    let patience = Duration::from_secs(2);
    let held: Vec<TcpStream> =
        (0..each()).filter_map(|_| TcpStream::connect_timeout(&address, patience).ok()).collect();
    println!("{}", held.len());
    let _ = std::io::stdin().read(&mut [0]);
}

/// Attackers that are connected; dropping them ends them.
struct Flood(Vec<Child>);

impl Flood {
    fn start(address: SocketAddr) -> Result<(Flood, usize)> {
        let program = std::env::current_exe()?;
        let spawn = |_| {
            let mut command = Command::new(&program);
            command.args([ATTACKER, &address.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn()
        };
        let mut flood = Flood((0..ATTACKERS).map(spawn).collect::<std::io::Result<_>>()?);
        let mut held = 0;
        for attacker in &mut flood.0 {
            let mut said = String::new();
            let out = attacker.stdout.as_mut().context("its output")?;
            std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said)?;
            held += said.trim().parse::<usize>().unwrap_or_default();
        }
        Ok((flood, held))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        for attacker in &mut self.0 {
            if let Some(mut input) = attacker.stdin.take() {
                let _ = input.write_all(b"\n");
            }
            let _ = attacker.wait();
        }
    }
}

/// Where a process listens over TCP on IPv4.
fn listeners(pid: i32) -> Result<BTreeSet<SocketAddr>> {
    let mut sockets = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            sockets.insert(inode.to_owned());
        }
    }
    const LISTENING: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let found = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = *fields.get(3)? == LISTENING && sockets.contains(*fields.get(9)?);
        let (address, port) = fields.get(1)?.split_once(':')?;
        let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.swap_bytes());
        let reached = if address.is_unspecified() { Ipv4Addr::LOCALHOST } else { address };
        ours.then_some(SocketAddr::new(IpAddr::V4(reached), u16::from_str_radix(port, 16).ok()?))
    });
    Ok(found.collect())
}

/// How long the middle one of several calls takes: one to the API server, and one through it to the kubelet.
fn median(cluster: &Cluster, path: &str) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..7 {
        let began = Instant::now();
        cluster.kubectl(&["get", "--raw", path])?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

fn silent(cluster: &Cluster) -> Result<()> {
    let server = *cluster.pids("daemon")?.first().context("a daemon")?;
    let ports = listeners(server)?;
    ensure!(ports.len() >= 8, "API server, kubelet and its health, etcd, DNS, pages, streams: {ports:?}");
    let nodes = cluster.get("nodes")?;
    let node = nodes["items"][0]["metadata"]["name"].as_str().context("a node")?;
    let paths = ["/api/v1/namespaces/default".to_owned(), format!("/api/v1/nodes/{node}/proxy/healthz")];
    let before = [median(cluster, &paths[0])?, median(cluster, &paths[1])?];
    for port in ports {
        let (_flood, held) = Flood::start(port)?;
        ensure!(held > each(), "only {held} connections to {port}");
        for (path, before) in paths.iter().zip(before) {
            let under = median(cluster, path).with_context(|| format!("with silent connections to {port}"))?;
            println!("    {port}: {path} {} ms, without {} ms", under.as_millis(), before.as_millis());
            // Clients share the processors with the attackers and other tests.
            ensure!(under < before * 3 + COST, "{path} takes {under:?} with silent connections to {port}");
        }
    }
    Ok(())
}
