//! DNS questions a second of CPU: dnsperf asks names of 10,000 Services, of a cluster of ours at its DNS address, then
//! CoreDNS with the kubernetes plugin, which has them from the same API server. No cache in CoreDNS, as ours has none
//! for the cluster's names.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Plan;
use crate::api::{block_on, create_all};
use crate::machine::{cpu, rss, settle};
use crate::ours::Ours;
use crate::table::{Row, figure};
use crate::upstream::{Process, Scratch, Upstream, cell};

pub const SERVICES: &str = "/api/v1/namespaces/default/services";
const COREDNS_PORT: u16 = 17053;

/// Questions a second, the same for each second of the server's CPU time, and its memory in MB.
struct Speed {
    rate: f64,
    of_cpu: f64,
    rss: f64,
}

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let (services, seconds) = (plan.or_quick(10_000, 100), plan.or_quick(10, 2));
    let scratch = Scratch::new("dns")?;
    let questions = scratch.path("questions");
    fs::write(&questions, self::questions(services))?;
    let cluster = Ours::up()?;
    block_on(create_all(&cluster.api()?, SERVICES, services, service))?;
    let last = service_name(services - 1);
    let (address, daemon) = (SocketAddr::from((cluster.dns()?, 53)), cluster.pids()?);
    ask(address, &last, Duration::from_secs(30))?;
    settle(&daemon)?;
    let daemon = *daemon.first().context("the cluster has no process")?;
    let ours = measure(address, daemon, &questions, seconds)?;
    let theirs = cell(CoreDns::start(&plan.upstream, &cluster.cluster.kubeconfig()).and_then(|dns| {
        ask(dns.address, &last, Duration::from_secs(60))?;
        settle(&[dns.pid()])?;
        measure(dns.address, dns.pid(), &questions, seconds)
    }));
    let of = |pick: fn(&Speed) -> f64, unit| theirs.as_ref().map(|s| figure(pick(s), unit)).map_err(Clone::clone);
    Ok(vec![
        Row::rate(
            format!("DNS, {services} Services: questions a CPU second"),
            "250,000/s",
            figure(ours.of_cpu, "/s"),
            of(|s| s.of_cpu, "/s"),
        ),
        Row::rate("DNS, beside dnsperf on the same cores", "", figure(ours.rate, "/s"), of(|s| s.rate, "/s")),
        Row::cost("DNS: RSS (ours: the whole cluster)", "", figure(ours.rss, "MB"), of(|s| s.rss, "MB")),
    ])
}

pub fn service_name(i: usize) -> String {
    format!("service-{i}.default.svc.cluster.local")
}

/// What a C library asks: A and AAAA, the port's SRV, and the search list's miss before a name outside.
fn questions(services: usize) -> String {
    (0..services).fold(String::new(), |mut text, i| {
        let name = service_name(i);
        let _ = writeln!(text, "{name} A\n{name} AAAA\n_http._tcp.{name} SRV\nexample.org.{name} A");
        text
    })
}

pub fn service(i: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{i}")},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    })
}

fn measure(address: SocketAddr, pid: u32, questions: &Path, seconds: u32) -> Result<Speed> {
    let before = cpu(pid)?;
    let mut command = Command::new("dnsperf");
    command.args(["-s", &address.ip().to_string(), "-p", &address.port().to_string(), "-l", &seconds.to_string()]);
    // Clients and questions on the way, enough to keep the server busy and no more.
    command.args(["-c", "8", "-q", "200", "-d"]).arg(questions);
    let said = testkit::output(&mut command, "").context("dnsperf")?.ok()?;
    let used = cpu(pid)? - before;
    let number = |label: &str| -> Result<f64> {
        let line = said.lines().find_map(|l| l.trim().strip_prefix(label)).with_context(|| format!("no {label:?}"))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    };
    let (completed, lost) = (number("Queries completed:")?, number("Queries lost:")?);
    ensure!(lost <= completed / 1000.0, "{lost} of {completed} questions were lost");
    Ok(Speed { rate: number("Queries per second:")?, of_cpu: completed / used, rss: rss(pid)? })
}

/// CoreDNS with the kubernetes plugin, on loopback.
pub struct CoreDns {
    process: Process,
    _dir: Scratch,
    pub address: SocketAddr,
}

impl CoreDns {
    pub fn start(upstream: &Upstream, kubeconfig: &Path) -> Result<CoreDns> {
        let dir = Scratch::new("coredns")?;
        let file = format!(
            ".:{COREDNS_PORT} {{\n  bind 127.0.0.1\n  kubernetes cluster.local {{\n    kubeconfig {}\n  }}\n}}\n",
            kubeconfig.display()
        );
        fs::write(dir.path("Corefile"), file)?;
        let mut command = Command::new(upstream.program("coredns")?);
        command.arg("-conf").arg(dir.path("Corefile"));
        let process = Process::start(&mut command, &dir.0, "coredns")?;
        Ok(CoreDns { process, _dir: dir, address: (Ipv4Addr::LOCALHOST, COREDNS_PORT).into() })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Asks for an address until there is one.
pub fn ask(server: SocketAddr, name: &str, patience: Duration) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let question = question(0x1234, name, A)?;
    testkit::eventually(patience, || {
        socket.send_to(&question, server)?;
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).with_context(|| format!("{server} does not answer for {name}"))?;
        ensure!(length >= 12 && answers(&answer) > 0, "{server} has no address for {name}");
        Ok(())
    })
}

pub const A: u8 = 1;
pub const AAAA: u8 = 28;

/// A question of one name, of a type below 256.
pub fn question(id: u16, name: &str, kind: u8) -> Result<Vec<u8>> {
    let mut question = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question[..2].copy_from_slice(&id.to_be_bytes());
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, kind, 0, 1]);
    Ok(question)
}

/// How many records answer, in a message with its head.
pub fn answers(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[6], message[7]])
}
