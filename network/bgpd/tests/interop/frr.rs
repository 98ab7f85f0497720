//! FRR: zebra, bgpd and, where it is asked for, bfdd.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::{Host, Program};
use crate::speaker::{Community, Conf, Path, Speaker, Table};

/// What it calls lists of communities.
const KINDS: [(Community, &str); 3] = [
    (Community::Standard, "community"),
    (Community::Large, "large-community"),
    (Community::Extended, "extcommunity rt"),
];

pub struct Frr {
    host: Host,
    vrf: Option<&'static str>,
    programs: Vec<Program>,
}

impl Frr {
    pub fn start(host: &Host, conf: &Conf) -> Frr {
        let mut frr = Frr { host: host.clone(), vrf: conf.vrf, programs: Vec::new() };
        frr.daemon("zebra", "");
        if conf.peers.iter().any(|peer| peer.bfd) {
            frr.daemon("bfdd", "");
        }
        frr.daemon("bgpd", &configuration(host, conf));
        frr
    }

    /// With a configuration of one's own.
    pub fn with(host: &Host, configuration: &str) -> Frr {
        let mut frr = Frr { host: host.clone(), vrf: None, programs: Vec::new() };
        frr.daemon("zebra", "");
        frr.daemon("bgpd", configuration);
        frr
    }

    /// They run as the user `frr`, who has to reach the sockets of the others.
    fn daemon(&mut self, name: &str, text: &str) {
        let dir = &self.host.dir;
        let file = self.host.file(&format!("{name}.conf"), text);
        let mut command = Command::new(format!("/usr/lib/frr/{name}"));
        command.arg("-f").arg(file).arg("-i").arg(dir.join(format!("{name}.pid")));
        command.arg("-z").arg(dir.join("zserv.api")).arg("--vty_socket").arg(dir);
        command.args(["--log", "stdout", "--log-level", "debugging"]);
        if name == "bfdd" {
            command.arg("--bfdctl").arg(dir.join("bfdd.sock"));
        }
        self.programs.push(self.host.start(name, &mut command));
        // What comes next connects to it.
        let socket = dir.join(format!("{name}.vty"));
        crate::lab::eventually(name, || {
            anyhow::ensure!(socket.exists(), "no {}", socket.display());
            Ok(())
        });
    }

    pub fn ask(&self, question: &str) -> Result<String> {
        self.host.say(Command::new("/usr/bin/vtysh").arg("--vty_socket").arg(&self.host.dir).args(["-c", question]))
    }

    /// Behind `show bgp`.
    fn vrf(&self) -> String {
        self.vrf.map(|vrf| format!("vrf {vrf} ")).unwrap_or_default()
    }

    fn ask_json(&self, question: &str) -> Result<Value> {
        let answer = self.ask(question)?;
        serde_json::from_str(&answer).with_context(|| format!("{question}: {answer}"))
    }
}

fn configuration(host: &Host, conf: &Conf) -> String {
    let mut text = format!(
        "log stdout\nrouter bgp {}{}\n bgp router-id 10.0.0.{}\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n no bgp default ipv4-unicast\n bgp graceful-restart\n \
         bgp graceful-restart restart-time {}\n bgp graceful-restart preserve-fw-state\n",
        conf.number,
        conf.vrf.map(|vrf| format!(" vrf {vrf}")).unwrap_or_default(),
        host.n,
        conf.peers.first().map_or(20, crate::speaker::Peer::restart_time),
    );
    if conf.peers.iter().any(|peer| peer.long_lived) {
        text.push_str(" bgp long-lived-graceful-restart stale-time 60\n");
    }
    if let Some(cluster) = conf.cluster {
        let _ = writeln!(text, " bgp cluster-id {cluster}");
    }
    for peer in &conf.peers {
        let (address, hold) = (name(peer), peer.hold);
        let _ = peer.unnumbered.then(|| writeln!(text, " neighbor {address} interface"));
        let mut say = |words: &str| {
            let _ = writeln!(text, " neighbor {address} {words}");
        };
        say(&format!("remote-as {}", peer.number));
        say(&format!("timers {} {hold}", hold / 3));
        say("timers connect 2");
        say("advertisement-interval 0");
        for (on, words) in [
            (peer.passive, "passive"),
            (peer.ttl_security, "ttl-security hops 1"),
            (peer.bfd, "bfd 3 100 100"),
            (!peer.graceful, "graceful-restart-disable"),
            (peer.ipv4_routes, "capability extended-nexthop"),
        ] {
            if on {
                say(words);
            }
        }
        if !peer.extra.is_empty() {
            say(peer.extra);
        }
        if let Some(password) = &peer.password {
            say(&format!("password {password}"));
        }
    }
    let mut maps = String::new();
    for family in ["ipv4", "ipv6"] {
        let _ = writeln!(text, " address-family {family} unicast");
        for network in conf.networks.iter().filter(|network| network.prefix.is_ipv6() == (family == "ipv6")) {
            let map = format!("{}", network.prefix).replace([':', '/', '.'], "-");
            let _ = writeln!(text, "  network {} route-map {map}", network.prefix);
            let _ = writeln!(maps, "route-map {map} permit 10");
            for (kind, list) in KINDS {
                let communities = network.of(kind).join(" ").replace("rt:", "");
                let _ = (!communities.is_empty()).then(|| writeln!(maps, " set {list} {communities}"));
            }
        }
        for peer in conf.peers.iter().filter(|peer| peer.carries(family == "ipv6")) {
            let address = name(peer);
            let _ = writeln!(text, "  neighbor {address} activate");
            if peer.client {
                let _ = writeln!(text, "  neighbor {address} route-reflector-client");
            }
            if peer.add_path {
                let _ = writeln!(text, "  neighbor {address} addpath-tx-all-paths");
            }
        }
        text.push_str(" exit-address-family\n");
    }
    text + "!\n" + &maps
}

/// By which it knows a neighbour.
fn name(peer: &crate::speaker::Peer) -> String {
    if peer.unnumbered { "eth0".to_owned() } else { peer.address().to_string() }
}

impl Speaker for Frr {
    fn name(&self) -> &'static str {
        "FRR"
    }

    fn sessions(&self) -> Result<Vec<IpAddr>> {
        let answer = self.ask_json(&format!("show bgp {}neighbors json", self.vrf()))?;
        let up = |(address, of): (&String, &Value)| (of["bgpState"] == "Established").then(|| address.parse().ok())?;
        Ok(answer.as_object().context("neighbours")?.iter().filter_map(up).collect())
    }

    fn routes(&self) -> Result<Table> {
        let mut table = Table::new();
        for family in ["ipv4", "ipv6"] {
            let answer = self.ask_json(&format!("show bgp {}{family} unicast json", self.vrf()))?;
            for prefix in answer["routes"].as_object().into_iter().flatten().map(|(prefix, _)| prefix) {
                let one = self.ask_json(&format!("show bgp {}{family} unicast {prefix} json", self.vrf()))?;
                let paths = one["paths"].as_array().into_iter().flatten().map(path).collect::<Result<_>>()?;
                table.insert(prefix.parse()?, paths);
            }
        }
        Ok(table)
    }

    fn kill(&mut self) {
        // Whoever restarts BGP alone leaves zebra and what it has put into the kernel.
        if let Some(bgpd) = self.programs.last_mut() {
            bgpd.kill();
        }
    }
}

fn path(path: &Value) -> Result<Path> {
    let next_hops = path["nexthops"].as_array().cloned().unwrap_or_default();
    let global = next_hops.iter().find(|hop| hop["scope"] != "link-local").or(next_hops.first());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let as_path = text(&path["aspath"]["string"]);
    let list = |kind: &str| path[kind]["list"].as_array().cloned().unwrap_or_default();
    let mut communities: Vec<String> = [list("community"), list("largeCommunity")].iter().flatten().map(text).collect();
    let extended = text(&path["extendedCommunity"]["string"]).replace("RT:", "rt:");
    communities.extend(extended.split_whitespace().map(str::to_owned));
    communities.sort_unstable();
    let clusters = path["clusterList"]["list"].as_array().into_iter().flatten();
    Ok(Path {
        next_hop: global.and_then(|hop| hop["ip"].as_str()?.parse().ok()),
        as_path: as_path.split_whitespace().filter_map(|number| number.parse().ok()).collect(),
        communities,
        originator: path["originatorId"].as_str().and_then(|id| id.parse().ok()),
        clusters: clusters.filter_map(|id| id.as_str()?.parse().ok()).collect(),
        best: path["bestpath"]["overall"] == true,
    })
}
