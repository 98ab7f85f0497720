//! GoBGP. It has no kernel side of its own.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::{Host, Program, eventually};
use crate::speaker::{Conf, Path, Speaker, Table};

pub struct Gobgp {
    host: Host,
    program: Program,
}

impl Gobgp {
    pub fn start(host: &Host, conf: &Conf) -> Gobgp {
        Gobgp::start_as(host, conf, &[])
    }

    /// Once more: it says that it was restarted, and keeps to what that means (RFC 4724).
    pub fn again(host: &Host, conf: &Conf) -> Gobgp {
        Gobgp::start_as(host, conf, &["--graceful-restart"])
    }

    fn start_as(host: &Host, conf: &Conf, more: &[&str]) -> Gobgp {
        let file = host.file("gobgp.toml", &configuration(host, conf));
        let mut command = Command::new("/usr/bin/gobgpd");
        command.arg("-f").arg(file).args(["--api-hosts", "127.0.0.1:50051", "--log-level", "debug", "--pprof-disable"]);
        command.args(more);
        let gobgp = Gobgp { host: host.clone(), program: host.start("gobgp", &mut command) };
        eventually("GoBGP", || gobgp.ask(&["global"]).map(drop));
        for network in &conf.networks {
            let family = if network.prefix.is_ipv6() { "ipv6" } else { "ipv4" };
            let prefix = network.prefix.to_string();
            let communities = network.communities.join(",");
            let mut words = vec!["global", "rib", "add", "-a", family, &prefix];
            if !communities.is_empty() {
                words.extend(["community", &communities]);
            }
            gobgp.ask(&words).unwrap();
        }
        gobgp
    }

    pub fn ask(&self, words: &[&str]) -> Result<String> {
        self.host.say(Command::new("/usr/bin/gobgp").args(words))
    }

    fn ask_json(&self, words: &[&str]) -> Result<Value> {
        let answer = self.ask(words)?;
        serde_json::from_str(&answer).with_context(|| format!("{words:?}: {answer}"))
    }
}

fn configuration(host: &Host, conf: &Conf) -> String {
    let mut text = format!("[global.config]\nas = {}\nrouter-id = \"10.0.0.{}\"\n", conf.number, host.n);
    for peer in &conf.peers {
        let (address, local, hold) = (peer.address(), peer.local(host), peer.hold);
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {}\n\
             auth-password = \"{}\"\n[neighbors.transport.config]\nlocal-address = \"{local}\"\npassive-mode = {}\n\
             [neighbors.timers.config]\nconnect-retry = 2\nhold-time = {hold}\nkeepalive-interval = {}\n\
             idle-hold-time-after-reset = 2\n[neighbors.graceful-restart.config]\nenabled = {}\nrestart-time = {}\n\
             long-lived-enabled = {}\n",
            peer.number,
            peer.password.as_deref().unwrap_or_default(),
            peer.passive,
            hold / 3,
            peer.graceful,
            peer.restart_time(),
            peer.long_lived,
        );
        if peer.ttl_security {
            text.push_str("[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n");
        }
        if peer.client {
            let cluster = conf.cluster.unwrap_or(Ipv4Addr::new(10, 0, 0, host.n));
            let _ = write!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{cluster}\"\n"
            );
        }
        let family = if peer.carries_ipv6() { "ipv6" } else { "ipv4" };
        let _ = write!(
            text,
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = {}\n",
            peer.graceful
        );
        if peer.long_lived {
            text.push_str(
                "[neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = 60\n",
            );
        }
        if peer.add_path {
            text.push_str("[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n");
        }
    }
    text
}

impl Speaker for Gobgp {
    fn name(&self) -> &'static str {
        "GoBGP"
    }

    fn sessions(&self) -> Result<Vec<IpAddr>> {
        let answer = self.ask_json(&["neighbor", "-j"])?;
        let up = |neighbour: &Value| {
            let state = &neighbour["state"];
            (state["session_state"] == 6).then(|| state["neighbor_address"].as_str()?.parse().ok())?
        };
        Ok(answer.as_array().into_iter().flatten().filter_map(up).collect())
    }

    fn routes(&self) -> Result<Table> {
        let mut table = Table::new();
        for family in ["ipv4", "ipv6"] {
            let answer = self.ask_json(&["global", "rib", "-a", family, "-j"])?;
            for (prefix, paths) in answer.as_object().into_iter().flatten() {
                let paths = paths.as_array().into_iter().flatten().map(path).collect();
                table.insert(prefix.parse()?, paths);
            }
        }
        Ok(table)
    }

    fn kill(&mut self) {
        self.program.kill();
    }
}

fn path(value: &Value) -> Path {
    let mut path = Path { best: value["best"] == true, ..Path::default() };
    for attribute in value["attrs"].as_array().into_iter().flatten() {
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let list = |name: &str| attribute[name].as_array().cloned().unwrap_or_default();
        match attribute["type"].as_u64() {
            Some(2) => {
                let segments = list("as_paths");
                let numbers =
                    segments.iter().flat_map(|segment| segment["asns"].as_array().cloned().unwrap_or_default());
                path.as_path = numbers.filter_map(|value| number(&value)).collect();
            }
            Some(3 | 14) => path.next_hop = attribute["nexthop"].as_str().and_then(|hop| hop.parse().ok()),
            Some(8) => {
                let pair = |community: u32| format!("{}:{}", community >> 16, community & 0xffff);
                path.communities = list("communities").iter().filter_map(number).map(pair).collect();
                path.communities.sort_unstable();
            }
            Some(9) => path.originator = attribute["value"].as_str().and_then(|id| id.parse().ok()),
            Some(10) => {
                path.clusters = list("value").iter().filter_map(|id| id.as_str()?.parse().ok()).collect();
            }
            _ => {}
        }
    }
    path
}
