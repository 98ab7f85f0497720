//! ExaBGP: no table of its own; what it hears is written down by a script and read here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;

use anyhow::Result;
use meta::Prefix;
use serde_json::Value;

use crate::lab::{Host, Program};
use crate::speaker::{Conf, Path, Speaker, Table};

pub struct Exabgp {
    host: Host,
    program: Program,
}

impl Exabgp {
    pub fn start(host: &Host, conf: &Conf) -> Exabgp {
        let heard = host.dir.join("heard");
        std::fs::write(&heard, "").unwrap();
        // The shell's own output stays open: when it closes, the script counts as dead.
        let script = host.file("hear.sh", &format!("cat >> {}\nexit\n", heard.display()));
        let run = format!("process hear {{ run /bin/sh {}; encoder json; }}\n", script.display());
        let file = host.file("exabgp.conf", &(run + &configuration(host, conf)));
        let mut command = Command::new("/usr/sbin/exabgp");
        command.arg(file).envs([
            ("exabgp.daemon.user", "root"),
            ("exabgp.daemon.daemonize", "false"),
            ("exabgp.log.destination", "stdout"),
            ("exabgp.log.level", "INFO"),
            ("exabgp.api.cli", "false"),
            ("exabgp.cache.nexthops", "false"),
        ]);
        if conf.peers.iter().any(|peer| peer.passive) {
            let addresses: Vec<String> = conf.peers.iter().map(|peer| peer.local(host).to_string()).collect();
            command.env("exabgp.tcp.bind", addresses.join(" ")).env("exabgp.tcp.port", "179");
        }
        Exabgp { host: host.clone(), program: host.start("exabgp", &mut command) }
    }

    /// What the script has been told, up to the last whole line.
    fn heard(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.host.dir.join("heard"))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        // A NOTIFICATION is told with bytes that are no JSON.
        Ok(whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

fn configuration(host: &Host, conf: &Conf) -> String {
    let mut text = String::new();
    for peer in &conf.peers {
        let (address, local, family) = (peer.address(), peer.local(host), if peer.ipv6 { "ipv6" } else { "ipv4" });
        let _ = write!(
            text,
            "neighbor {address} {{\n  router-id 10.0.0.{};\n  local-address {local};\n  local-as {};\n  peer-as {};\n  \
             hold-time {};\n  family {{ {family} unicast; }}\n  \
             capability {{ route-refresh enable; extended-message enable; {}{} }}\n  \
             api {{ processes [ hear ]; neighbor-changes; receive {{ parsed; update; }} }}\n",
            host.n,
            conf.number,
            peer.number,
            peer.hold,
            if peer.graceful { "graceful-restart 20; " } else { "" },
            if peer.add_path { "add-path send/receive; " } else { "" },
        );
        if peer.passive {
            text.push_str("  passive true;\n  listen 179;\n");
        }
        if let Some(password) = &peer.password {
            let _ = writeln!(text, "  md5-password '{password}';");
        }
        if peer.ttl_security {
            text.push_str("  outgoing-ttl 255;\n  incoming-ttl 255;\n");
        }
        text.push_str("  static {\n");
        for network in conf.networks.iter().filter(|network| network.prefix.is_ipv6() == peer.ipv6) {
            let communities = network.communities.join(" ");
            let _ = writeln!(text, "    route {} next-hop self community [ {communities} ];", network.prefix);
        }
        text.push_str("  }\n}\n");
    }
    text
}

impl Speaker for Exabgp {
    fn name(&self) -> &'static str {
        "ExaBGP"
    }

    fn sessions(&self) -> Result<Vec<IpAddr>> {
        let mut up = BTreeSet::new();
        for message in self.heard()?.iter().filter(|message| message["type"] == "state") {
            let neighbour = &message["neighbor"];
            let address: IpAddr = neighbour["address"]["peer"].as_str().unwrap_or_default().parse()?;
            match neighbour["state"].as_str() {
                Some("up") => drop(up.insert(address)),
                _ => drop(up.remove(&address)),
            }
        }
        Ok(up.into_iter().collect())
    }

    fn routes(&self) -> Result<Table> {
        // By neighbour, prefix and path identifier.
        let mut paths: BTreeMap<(String, Prefix, String), Path> = BTreeMap::new();
        for message in self.heard()? {
            let neighbour = &message["neighbor"];
            let peer = neighbour["address"]["peer"].as_str().unwrap_or_default().to_owned();
            if message["type"] == "state" && neighbour["state"] == "down" {
                paths.retain(|(from, ..), _| *from != peer);
            }
            let update = &neighbour["message"]["update"];
            let of =
                |part: &'static str| update[part].as_object().into_iter().flatten().map(|(_, of_family)| of_family);
            let key = |nlri: &Value| -> Result<(String, Prefix, String)> {
                let text = nlri["nlri"].as_str().or(nlri.as_str()).unwrap_or_default();
                Ok((peer.clone(), text.parse()?, nlri["path-information"].to_string()))
            };
            for nlri in of("withdraw").flat_map(|list| list.as_array().into_iter().flatten()) {
                paths.remove(&key(nlri)?);
            }
            for of_hops in of("announce").filter_map(Value::as_object) {
                // A second address, of the link, counts as another next hop; it comes after the first.
                for (hop, list) in of_hops.iter().take(1) {
                    for nlri in list.as_array().into_iter().flatten() {
                        let path = Path { next_hop: hop.parse().ok(), ..path(&update["attribute"]) };
                        if nlri.get("eor").is_none() {
                            paths.insert(key(nlri)?, path);
                        }
                    }
                }
            }
        }
        let mut table = Table::new();
        for ((_, prefix, _), path) in paths {
            table.entry(prefix).or_default().push(path);
        }
        Ok(table)
    }

    fn kill(&mut self) {
        self.program.kill();
    }
}

fn path(attributes: &Value) -> Path {
    let pair = |value: &Value| {
        let numbers: Vec<String> = value.as_array().into_iter().flatten().map(Value::to_string).collect();
        numbers.join(":")
    };
    let numbers = |value: &Value| -> Vec<u32> {
        // A path is a list, or since 5.0 a map of segments.
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|number| u32::try_from(number.as_u64()?).ok()).collect()
    };
    let mut communities: Vec<String> = attributes["community"].as_array().into_iter().flatten().map(pair).collect();
    communities.sort_unstable();
    let clusters = attributes["cluster-list"].as_array().into_iter().flatten();
    Path {
        next_hop: None,
        as_path: numbers(&attributes["as-path"]),
        communities,
        originator: attributes["originator-id"].as_str().and_then(|id| id.parse().ok()),
        clusters: clusters.filter_map(|id| id.as_str()?.parse().ok()).collect(),
        best: true,
    }
}
