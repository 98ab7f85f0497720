//! The speaker that is measured: ours, BIRD or GoBGP, each on a host of its own and told the same by its own
//! configuration. I/O: programs, files below a directory of its own.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::{Host, Running, binary, eventually, output};

use crate::machine;

/// Where it is, and its AS.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const NUMBER: u32 = 64512;
/// Seconds: nobody has to think of keepalives while the speaker is busy. GoBGP gives up at once who has none at all.
pub const HOLD_TIME: u16 = 3600;
/// For a start.
const SOON: Duration = Duration::from_secs(30);

/// Whose program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Ours,
    Bird,
    Gobgp,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Program::Ours => "ours",
            Program::Bird => "BIRD",
            Program::Gobgp => "GoBGP",
        }
    }
}

/// A neighbour as the speaker is told of him: he connects.
#[derive(Clone, Copy)]
pub struct Neighbour {
    pub address: Ipv4Addr,
    pub number: u32,
}

impl Neighbour {
    /// The nth; of the speaker's AS where none is said.
    pub fn new(n: u16, number: Option<u32>) -> Neighbour {
        let [high, low] = (n + 2).to_be_bytes();
        Neighbour { address: [10, 0, high, low].into(), number: number.unwrap_or(NUMBER) }
    }

    fn is_client(&self) -> bool {
        self.number == NUMBER
    }
}

/// A program that runs.
pub struct Speaker {
    program: Program,
    host: Host,
    running: Running,
    dir: PathBuf,
}

impl Speaker {
    /// With these neighbours; `kernel` is that chosen routes go into the kernel.
    pub fn start(program: Program, host: Host, dir: &Path, neighbours: &[Neighbour], kernel: bool) -> Result<Speaker> {
        std::fs::create_dir_all(dir)?;
        let (text, file) = match program {
            Program::Ours => (ours(dir, neighbours, kernel).to_string(), "bgp.json"),
            Program::Bird => (bird(neighbours, kernel), "bird.conf"),
            Program::Gobgp => {
                ensure!(!kernel, "has no kernel side of its own");
                (gobgp(neighbours), "gobgp.toml")
            }
        };
        let file = dir.join(file);
        std::fs::write(&file, text)?;
        let mut command;
        match program {
            Program::Ours => {
                command = host.command(binary());
                command.args(["bgp", "--config"]).arg(file);
            }
            Program::Bird => {
                command = host.command("/usr/sbin/bird");
                command.arg("-f").arg("-c").arg(file).arg("-s").arg(dir.join("bird.ctl"));
            }
            Program::Gobgp => {
                command = host.command("/usr/bin/gobgpd");
                command.arg("-f").arg(file).args(["--api-hosts", "127.0.0.1:50051", "--pprof-disable"]);
                command.args(["--log-level", "error"]);
            }
        }
        let running = Running::start(&mut command)?;
        let speaker = Speaker { program, host, running, dir: dir.to_owned() };
        let listens = || {
            let said = speaker.host.sh("ss -Hltn sport = :179")?;
            ensure!(!said.is_empty(), "{} does not listen: {}", program.name(), speaker.running.said());
            Ok(())
        };
        eventually(SOON, listens)?;
        Ok(speaker)
    }

    /// Prefixes that it has of all its neighbours.
    pub fn received(&self) -> Result<usize> {
        match self.program {
            Program::Ours => {
                let mut show = self.host.command(binary());
                show.args(["bgp", "show", "neighbors", "-o", "json", "--socket"]).arg(self.dir.join("bgp.sock"));
                let answer = output(&mut show, "")?.ok()?;
                let all: Vec<Value> = serde_json::from_str(&answer)?;
                Ok(all.iter().filter_map(|view| view["received"]["ipv4"].as_u64()).sum::<u64>() as usize)
            }
            Program::Bird => {
                let mut birdc = self.host.command("/usr/sbin/birdc");
                birdc.arg("-s").arg(self.dir.join("bird.ctl")).args(["show", "protocols", "all"]);
                let said = output(&mut birdc, "")?.ok()?;
                let imported = said.lines().filter_map(|line| line.trim().strip_prefix("Routes:"));
                let number = |line: &str| line.split_whitespace().next()?.parse::<usize>().ok();
                // Of its own links it has a few.
                Ok(imported.filter_map(number).sum())
            }
            Program::Gobgp => {
                let answer = output(self.host.command("/usr/bin/gobgp").args(["neighbor", "-j"]), "")?.ok()?;
                let all: Vec<Value> = serde_json::from_str(&answer)?;
                let families = all.iter().flat_map(|view| view["afi_safis"].as_array().into_iter().flatten());
                Ok(families.filter_map(|family| family["state"]["received"].as_u64()).sum::<u64>() as usize)
            }
        }
    }

    /// Prefixes in its host's tables.
    pub fn in_kernel(&self) -> Result<usize> {
        let said = self.host.sh("cat /proc/net/fib_triestat")?;
        let counts =
            said.lines().filter_map(|line| line.trim().strip_prefix("Prefixes:")?.trim().parse::<usize>().ok());
        Ok(counts.max().unwrap_or_default())
    }

    /// Seconds of CPU up to now.
    pub fn cpu(&self) -> Result<f64> {
        machine::cpu(self.running.pid())
    }

    /// Resident megabytes.
    pub fn rss(&self) -> Result<f64> {
        machine::rss(self.running.pid())
    }

    /// Fails when it has ended.
    pub fn lives(&self) -> Result<()> {
        if self.cpu().is_err() {
            bail!("{} ended: {}", self.program.name(), self.running.said());
        }
        Ok(())
    }
}

fn ours(dir: &Path, neighbours: &[Neighbour], kernel: bool) -> Value {
    let one = |neighbour: &Neighbour| {
        let mut all = json!({"address": neighbour.address, "remote-as": neighbour.number, "group": "all"});
        if neighbour.is_client() {
            all["route-reflector-client"] = json!(true);
        }
        all
    };
    json!({
        "router-id": ADDRESS,
        "as": NUMBER,
        "control-socket": dir.join("bgp.sock"),
        "kernel": {"routes": kernel},
        "groups": [{
            "name": "all", "passive": true, "hold-time": HOLD_TIME, "import": "accept", "export": "accept",
            "graceful-restart": {"mode": "off"},
            "prefix-limits": {"ipv4": {"most": 4_000_000}},
        }],
        "neighbors": neighbours.iter().map(one).collect::<Vec<_>>(),
    })
}

fn bird(neighbours: &[Neighbour], kernel: bool) -> String {
    let mut text = format!("router id {ADDRESS};\nprotocol device {{}}\nprotocol direct {{ ipv4; }}\n");
    if kernel {
        text.push_str("protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }\n");
    }
    for (n, neighbour) in neighbours.iter().enumerate() {
        let Neighbour { address, number } = neighbour;
        let client = if neighbour.is_client() { "rr client;" } else { "" };
        let _ = writeln!(
            text,
            "protocol bgp p{n} {{ local {ADDRESS} as {NUMBER}; neighbor {address} as {number}; passive on; {client} hold time {HOLD_TIME};\n  \
             graceful restart off; enable extended messages on; ipv4 {{ import all; export all; }}; }}"
        );
    }
    text
}

fn gobgp(neighbours: &[Neighbour]) -> String {
    let mut text = format!("[global.config]\nas = {NUMBER}\nrouter-id = \"{ADDRESS}\"\n");
    for neighbour in neighbours {
        let Neighbour { address, number } = neighbour;
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {number}\n\
             [neighbors.transport.config]\npassive-mode = true\n[neighbors.timers.config]\nhold-time = {HOLD_TIME}\n"
        );
        if neighbour.is_client() {
            let _ = write!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{ADDRESS}\"\n"
            );
        }
        text.push_str("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n");
    }
    text
}

/// A link of the speaker's host to one of all its neighbours, who have this many addresses there.
pub fn hosts(neighbours: usize) -> Result<(Host, Host)> {
    let (speaker, others) = (Host::new()?, Host::new()?);
    speaker.sh(&format!("ip link add wire type veth peer name wire netns {}", others.pid())).context("a link")?;
    speaker.sh(&format!("ip address add {ADDRESS}/16 dev wire; ip link set wire up"))?;
    let add = |n: usize| format!("ip address add {}/16 dev wire\n", Neighbour::new(n as u16, None).address);
    others.sh(&format!("set -e; {} ip link set wire up", (0..neighbours).map(add).collect::<String>()))?;
    Ok((speaker, others))
}
