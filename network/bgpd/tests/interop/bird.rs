//! BIRD 2.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result};
use meta::Prefix;

use crate::lab::{Host, Program, v6};
use crate::speaker::{Community, Conf, Path, Peer, Speaker, Table};

/// What it calls lists of communities.
const KINDS: [(Community, &str); 3] = [
    (Community::Standard, "bgp_community"),
    (Community::Large, "bgp_large_community"),
    (Community::Extended, "bgp_ext_community"),
];

pub struct Bird {
    host: Host,
    program: Program,
}

impl Bird {
    pub fn start(host: &Host, conf: &Conf) -> Bird {
        Bird::with(host, &configuration(host, conf))
    }

    /// With a configuration of one's own.
    pub fn with(host: &Host, configuration: &str) -> Bird {
        let file = host.file("bird.conf", configuration);
        let mut command = Command::new("/usr/sbin/bird");
        command.arg("-f").arg("-c").arg(file).arg("-s").arg(host.dir.join("bird.ctl"));
        Bird { host: host.clone(), program: host.start("bird", &mut command) }
    }

    pub fn ask(&self, question: &str) -> Result<String> {
        self.say(&question.split(' ').collect::<Vec<_>>())
    }

    pub fn say(&self, words: &[&str]) -> Result<String> {
        let socket = self.host.dir.join("bird.ctl");
        self.host.say(Command::new("/usr/sbin/birdc").arg("-s").arg(socket).args(words))
    }
}

fn configuration(host: &Host, conf: &Conf) -> String {
    let mut text = format!(
        "log stderr all;\nrouter id 10.0.0.{};\nprotocol device {{ scan time 1; }}\n\
         filter bgp_out {{ if source = RTS_STATIC || source = RTS_BGP then accept; reject; }}\n",
        host.n
    );
    for family in ["ipv4", "ipv6"] {
        let _ = writeln!(text, "protocol direct {{ {family} {{ export none; }}; }}");
        if conf.kernel {
            let _ = writeln!(
                text,
                "protocol kernel {{ {family} {{ import none; export where source = RTS_BGP; }}; merge paths on; persist; }}"
            );
        }
        let _ = writeln!(text, "protocol static {{ {family};");
        for network in conf.networks.iter().filter(|network| network.prefix.is_ipv6() == (family == "ipv6")) {
            let mut communities = String::new();
            for (kind, list) in KINDS {
                for community in network.of(kind) {
                    let _ = write!(communities, "{list}.add(({})); ", community.replace(':', ","));
                }
            }
            let _ = writeln!(text, "  route {} blackhole {{ {communities}}};", network.prefix);
        }
        text.push_str("}\n");
    }
    for (at, peer) in conf.peers.iter().enumerate() {
        text.push_str(&session(host, conf, at, peer));
    }
    if conf.peers.iter().any(|peer| peer.bfd) {
        text.push_str(
            "protocol bfd { interface \"*\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }\n",
        );
    }
    text
}

fn session(host: &Host, conf: &Conf, at: usize, peer: &Peer) -> String {
    let (local, remote, hold) = (peer.local(host), peer.address(), peer.hold);
    let mut text = format!(
        "protocol bgp p{at} {{\n  local {local} as {};\n  neighbor {remote} as {};\n  hold time {hold};\n  \
         connect delay time 1; connect retry time 2; error wait time 1, 2; direct; startup hold time 10;\n  \
         enable extended messages on; graceful restart {}; graceful restart time {};\n",
        conf.number,
        peer.number,
        if peer.graceful { "on" } else { "off" },
        peer.restart_time()
    );
    for (on, option) in [
        (peer.passive, "passive on;"),
        (peer.ttl_security, "ttl security on;"),
        (peer.client, "rr client;"),
        (peer.bfd, "bfd on;"),
        (peer.long_lived, "long lived graceful restart on; long lived stale time 60;"),
    ] {
        if on {
            let _ = writeln!(text, "  {option}");
        }
    }
    if let Some(password) = &peer.password {
        let _ = writeln!(text, "  password \"{password}\";");
    }
    if let Some(cluster) = conf.cluster {
        let _ = writeln!(text, "  rr cluster id {cluster};");
    }
    let _ = writeln!(text, "  {}", peer.extra);
    let next_hops = if peer.ipv4_routes { "extended next hop on; " } else { "" };
    let paths = if peer.add_path { "add paths on; " } else { "" };
    for family in ["ipv4", "ipv6"].into_iter().filter(|family| peer.carries(*family == "ipv6")) {
        // The transport says no next hop of the other family.
        let own =
            if peer.both && family == "ipv6" { format!("next hop address {}; ", v6(host.n)) } else { String::new() };
        let _ = writeln!(text, "  {family} {{ {paths}{next_hops}{own}import all; export filter bgp_out; }};");
    }
    text + "}\n"
}

impl Speaker for Bird {
    fn name(&self) -> &'static str {
        "BIRD"
    }

    fn sessions(&self) -> Result<Vec<IpAddr>> {
        let mut up = Vec::new();
        let mut established = false;
        for line in self.ask("show protocols all")?.lines() {
            if let Some(state) = line.trim().strip_prefix("BGP state:") {
                established = state.trim() == "Established";
            }
            if let Some(address) = line.trim().strip_prefix("Neighbor address:")
                && established
            {
                up.push(address.trim().parse()?);
            }
        }
        Ok(up)
    }

    fn routes(&self) -> Result<Table> {
        let mut table = Table::new();
        let mut prefix: Option<Prefix> = None;
        for line in self.ask("show route all")?.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if line.contains(" [") && !line.starts_with('\t') {
                if !line.starts_with(' ') {
                    prefix = Some(first.parse()?);
                }
                // The routes of links say nothing.
                if line.contains("[direct") {
                    prefix = None;
                }
                let paths = prefix.map(|prefix| table.entry(prefix).or_default());
                paths.into_iter().for_each(|paths| paths.push(Path { best: line.contains("] *"), ..Path::default() }));
                continue;
            }
            let Some(path) = prefix.and_then(|prefix| table.get_mut(&prefix)?.last_mut()) else { continue };
            let rest: Vec<&str> = words.collect();
            // A long list goes on below.
            if first.starts_with('(') {
                path.communities.extend(communities(line));
                path.communities.sort_unstable();
                continue;
            }
            match first {
                "BGP.next_hop:" => path.next_hop = Some(rest.first().context("next hop")?.parse()?),
                "BGP.as_path:" => path.as_path = rest.iter().filter_map(|number| number.parse().ok()).collect(),
                "BGP.community:" | "BGP.large_community:" | "BGP.ext_community:" => {
                    path.communities.extend(communities(&rest.join(" ")));
                    path.communities.sort_unstable();
                }
                "BGP.originator_id:" => path.originator = rest.first().and_then(|id| id.parse().ok()),
                "BGP.cluster_list:" => path.clusters = rest.iter().filter_map(|id| id.parse().ok()).collect(),
                _ => {}
            }
        }
        Ok(table)
    }

    fn kill(&mut self) {
        self.program.kill();
    }
}

/// `(1,2)`, `(1, 2, 3)` and `(rt, 1, 2)`, several of them.
fn communities(text: &str) -> Vec<String> {
    let joined = text.replace(", ", ":").replace(',', ":");
    joined.split_whitespace().map(|one| one.trim_matches(['(', ')']).to_owned()).collect()
}
