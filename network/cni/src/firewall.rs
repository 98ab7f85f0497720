//! Finds out whether the host's own firewall would drop what pods send, and what opens it. Does I/O.
//!
//! A drop in any table is final, so no rule of ours could let packets through: whose table it is has to be told of the
//! pods, each tool in its own words and where it keeps them over a reload. What is seen: base chains of nftables (so
//! also of today's iptables, ufw and firewalld) at the forward and input hooks, whose policy is drop or whose last rule
//! refuses everything.
//!
//! ```text
//! FORWARD (policy drop) ──► DOCKER-USER        Docker's chain for rules of others
//!                       └─► ufw-user-forward   what `ufw route allow` writes into
//! filter_FORWARD ──► filter_FORWARD_POLICIES ──► filter_FWD_trusted     firewalld, by zones
//! ```

use std::collections::BTreeSet;

use linux::netlink::Error;
use linux::netlink::message::{attr, attrs, text};
use linux::nft::{Batch, ChainInfo, Expr, Family, Nft, Policy, RuleInfo, Verdict, hook, rule};
use meta::{Prefix, Ranges};
use serde::{Deserialize, Serialize};

/// The comment of rules that we put into a table of nobody's tool.
const COMMENT: &str = "ferrokube: pods";

/// A chain that drops what pods send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// As nft writes it: `ip`, `ip6`, `inet`.
    pub family: String,
    /// The table's name.
    pub table: String,
    /// The base chain that has the hook and the policy, or the chain that it jumps to.
    pub chain: String,
    /// Which of the pods' packets it drops.
    pub way: Way,
    /// Who made it: what can be said to a person depends on it.
    pub tool: Tool,
}

/// What the chain sees of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// What they send to others, and what others send to them.
    Forward,
    /// What they send to this host.
    Input,
}

/// Who looks after the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tool {
    /// ufw, over iptables-nft: `ufw route allow`.
    Ufw,
    /// firewalld: a zone that has the bridge.
    Firewalld,
    /// Docker: its chain `DOCKER-USER` is for others.
    Docker,
    /// A table of nobody's tool: `/etc/nftables.conf`, as a rule.
    Nftables,
}

/// What others' firewalls would do to pods; none when all is well. `bridge` and `pods` are those of the pod network,
/// `is_ours` knows our own tables by name.
pub fn diagnose(bridge: &str, pods: Ranges, is_ours: impl Fn(&str) -> bool) -> Result<Vec<Wall>, Error> {
    let mut nft = Nft::open()?;
    // Our own have thousands of chains on a large cluster, and most hosts have no others.
    if nft.tables()?.iter().all(|table| is_ours(&table.name)) {
        return Ok(Vec::new());
    }
    let chains = nft.chains()?;
    let mut walls = Vec::new();
    for chain in chains.iter().filter(|c| !is_ours(&c.table)) {
        let Some(way) = sees_pods(chain) else { continue };
        let seen: Vec<Prefix> = of_family(chain.family, pods).collect();
        if seen.is_empty() {
            continue;
        }
        let rules = nft.rules(chain.family, &chain.table)?;
        let last = rules.iter().rfind(|r| r.chain == chain.name);
        if chain.policy != Some(Policy::Drop) && !last.is_some_and(refuses_everything) {
            continue;
        }
        let reached = reached(chain, &chains, &rules);
        // One that names the bridge or the pods' addresses on the way has been taught about us.
        let named =
            |range: &Prefix| rules.iter().any(|r| reached.contains(r.chain.as_str()) && names(r, bridge, *range));
        if seen.iter().all(named) {
            continue;
        }
        walls.push(Wall {
            family: chain.family.name().to_owned(),
            table: chain.table.clone(),
            chain: chain.name.clone(),
            way,
            tool: tool(chain, &reached),
        });
    }
    Ok(walls)
}

/// A filter where packets of pods pass.
fn sees_pods(chain: &ChainInfo) -> Option<Way> {
    let way = match chain.hook? {
        hook::FORWARD => Way::Forward,
        hook::INPUT => Way::Input,
        _ => return None,
    };
    matches!(chain.family, Family::Ip | Family::Ip6 | Family::Inet).then_some(way)
}

/// The ranges whose packets chains of a family see.
fn of_family(family: Family, pods: Ranges) -> impl Iterator<Item = Prefix> {
    let sees = move |range: &Prefix| match family {
        Family::Ip => !range.is_ipv6(),
        Family::Ip6 => range.is_ipv6(),
        _ => true,
    };
    pods.iter().filter(sees)
}

/// The chain and all that its rules lead to.
fn reached<'a>(from: &'a ChainInfo, chains: &'a [ChainInfo], rules: &[RuleInfo]) -> BTreeSet<&'a str> {
    let beside = |c: &&ChainInfo| c.family == from.family && c.table == from.table;
    let names: BTreeSet<&str> = chains.iter().filter(beside).map(|c| c.name.as_str()).collect();
    let (mut found, mut todo) = (BTreeSet::from([from.name.as_str()]), vec![from.name.as_str()]);
    while let Some(chain) = todo.pop() {
        let targets = rules.iter().filter(|r| r.chain == chain).filter_map(target);
        for target in targets.filter_map(|name| names.get(name.as_str()).copied()) {
            if found.insert(target) {
                todo.push(target);
            }
        }
    }
    found
}

fn tool(chain: &ChainInfo, reached: &BTreeSet<&str>) -> Tool {
    if chain.table == "firewalld" {
        Tool::Firewalld
    } else if reached.iter().any(|name| name.starts_with("ufw-user-")) {
        Tool::Ufw
    } else if reached.contains("DOCKER-USER") {
        Tool::Docker
    } else {
        Tool::Nftables
    }
}

/// The expressions of a rule: name and data.
fn expressions(rule: &RuleInfo) -> impl Iterator<Item = (String, &[u8])> {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    attrs(&rule.exprs)
        .map(|(_, expr)| (attr(expr, NAME).map(text).unwrap_or_default(), attr(expr, DATA).unwrap_or_default()))
}

const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;

fn verdict(immediate: &[u8]) -> Option<&[u8]> {
    attr(attr(immediate, IMMEDIATE_DATA)?, DATA_VERDICT)
}

/// The chain that a rule jumps or goes to.
fn target(rule: &RuleInfo) -> Option<String> {
    const VERDICT_CHAIN: u16 = 2;
    let (_, last) = expressions(rule).filter(|(name, _)| name == "immediate").last()?;
    attr(verdict(last)?, VERDICT_CHAIN).map(text)
}

/// A rule without a condition that ends the packet.
fn refuses_everything(rule: &RuleInfo) -> bool {
    let mut refuses = false;
    for (name, data) in expressions(rule) {
        match name.as_str() {
            "counter" | "log" | "limit" => {}
            "reject" => refuses = true,
            "immediate" => refuses |= is_drop(data),
            _ => return false,
        }
    }
    refuses
}

/// A verdict holds its code in network order: drop is 0, everything else is not.
fn is_drop(immediate: &[u8]) -> bool {
    const VERDICT_CODE: u16 = 1;
    verdict(immediate).and_then(|v| attr(v, VERDICT_CODE)) == Some(&[0; 4])
}

/// Whether a rule compares with the bridge's name or the pods' network. A prefix of whole bytes is compared by these
/// alone.
fn names(rule: &RuleInfo, bridge: &str, subnet: Prefix) -> bool {
    const CMP_DATA: u16 = 3;
    const DATA_VALUE: u16 = 1;
    let network = match subnet.network().addr {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let whole_bytes = subnet.len.is_multiple_of(8);
    let short = &network[..usize::from(subnet.len / 8)];
    expressions(rule).filter(|(name, _)| name == "cmp").any(|(_, data)| {
        let value = attr(data, CMP_DATA).and_then(|d| attr(d, DATA_VALUE)).unwrap_or_default();
        value == network || whole_bytes && value == short || text(value) == bridge
    })
}

/// What to do about these walls, a sentence for each tool.
pub fn advice(walls: &[Wall], pods: Ranges) -> Vec<String> {
    let mut told = Vec::new();
    for tool in [Tool::Ufw, Tool::Firewalld, Tool::Docker, Tool::Nftables] {
        let ours: Vec<&Wall> = walls.iter().filter(|wall| wall.tool == tool).collect();
        let of = |way: Way| ours.iter().filter(|w| w.way == way).map(|w| w.place()).collect::<Vec<_>>().join(", ");
        let (forward, input) = (of(Way::Forward), of(Way::Input));
        let mut drops = Vec::new();
        if !forward.is_empty() {
            drops.push(format!(
                "drops forwarded packets (nftables chain {forward}), so pods reach neither each other's Services nor \
                 the outside"
            ));
        }
        if !input.is_empty() {
            drops.push(format!(
                "drops incoming packets (nftables chain {input}), so pods reach neither DNS nor the API server on \
                 this node"
            ));
        }
        if drops.is_empty() {
            continue;
        }
        let mut lines: Vec<String> = ours.iter().flat_map(|wall| wall.opening(pods)).map(|l| l.join(" ")).collect();
        let mut seen = BTreeSet::new();
        lines.retain(|line| seen.insert(line.clone()));
        let lines = lines.iter().map(|line| format!("`{line}`")).collect::<Vec<_>>().join(" and ");
        let whose = match tool {
            Tool::Ufw => " (ufw)",
            Tool::Firewalld => " (firewalld)",
            Tool::Docker => " (Docker's rules)",
            Tool::Nftables => "",
        };
        told.push(format!(
            "the host's firewall{whose} {}: `ferrokube up --open-firewall` opens it for pods, or run {lines}",
            drops.join(", and ")
        ));
    }
    told
}

impl Wall {
    fn place(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.chain)
    }

    /// The command lines that let packets of pods through. Where a tool keeps its own configuration, they are kept in it.
    pub fn opening(&self, pods: Ranges) -> Vec<Vec<String>> {
        let Some(family) = self.family() else { return Vec::new() };
        of_family(family, pods).flat_map(|range| self.opening_for(range)).collect()
    }

    fn opening_for(&self, range: Prefix) -> Vec<Vec<String>> {
        let pods = range.to_string();
        let (ip, iptables) = if range.is_ipv6() { ("ip6", "ip6tables") } else { ("ip", "iptables") };
        let place = self.place();
        let lines: Vec<String> = match (self.tool, self.way) {
            (Tool::Ufw, Way::Input) => vec![format!("ufw allow from {pods}")],
            (Tool::Ufw, Way::Forward) => {
                vec![format!("ufw route allow from {pods}"), format!("ufw route allow to {pods}")]
            }
            (Tool::Firewalld, _) => vec![
                format!("firewall-cmd --zone=trusted --add-source={pods}"),
                format!("firewall-cmd --permanent --zone=trusted --add-source={pods}"),
            ],
            (Tool::Docker, _) => vec![
                format!("{iptables} -I DOCKER-USER -s {pods} -j ACCEPT"),
                format!("{iptables} -I DOCKER-USER -d {pods} -j ACCEPT"),
            ],
            (Tool::Nftables, Way::Input) => vec![format!("nft insert rule {place} {ip} saddr {pods} accept")],
            (Tool::Nftables, Way::Forward) => vec![
                format!("nft insert rule {place} {ip} saddr {pods} accept"),
                format!("nft insert rule {place} {ip} daddr {pods} accept"),
            ],
        };
        lines.iter().map(|line| words(line)).collect()
    }

    /// The command lines that take these back; none of a table that no tool looks after.
    pub fn closing(&self, pods: Ranges) -> Vec<Vec<String>> {
        if self.tool == Tool::Nftables {
            return Vec::new();
        }
        let back = |line: Vec<String>| {
            let line = line.join(" ").replace(" allow ", " delete allow ").replace("--add-source=", "--remove-source=");
            words(&line.replace(" -I ", " -D "))
        };
        self.opening(pods).into_iter().map(back).collect()
    }

    /// The same for a table that no tool looks after: our rules are put before all others, and known by their comment.
    pub fn open_directly(&self, pods: Ranges) -> Result<(), Error> {
        let Some(family) = self.family() else { return Ok(()) };
        let accept = || vec![Expr::Verdict(Verdict::Accept)];
        let mut batch = Batch::new(family, &self.table);
        for range in of_family(family, pods) {
            let ethernet = if range.is_ipv6() { ETHERNET_IPV6 } else { ETHERNET_IPV4 };
            let is_family = || if family == Family::Inet { rule::ethernet_is(ethernet) } else { Vec::new() };
            let from = rule::all([is_family(), rule::source_in(range, true), accept()]);
            batch.insert_rule(&self.chain, &from, Some(COMMENT));
            if self.way == Way::Forward {
                let to = rule::all([is_family(), rule::destination_in(range, true), accept()]);
                batch.insert_rule(&self.chain, &to, Some(COMMENT));
            }
        }
        Nft::open()?.commit(batch)
    }

    /// Takes those rules out; idempotent.
    pub fn close_directly(&self) -> Result<(), Error> {
        let Some(family) = self.family() else { return Ok(()) };
        let mut nft = Nft::open()?;
        if !nft.has_table(family, &self.table)? {
            return Ok(());
        }
        let mut batch = Batch::new(family, &self.table);
        for rule in nft.rules(family, &self.table)? {
            if rule.chain == self.chain && rule.comment.as_deref() == Some(COMMENT) {
                batch.delete_rule(&rule.chain, rule.handle);
            }
        }
        nft.commit(batch)
    }

    fn family(&self) -> Option<Family> {
        [Family::Ip, Family::Ip6, Family::Inet].into_iter().find(|family| family.name() == self.family)
    }
}

/// ETH_P_IP.
const ETHERNET_IPV4: u16 = 0x0800;
/// ETH_P_IPV6.
const ETHERNET_IPV6: u16 = 0x86dd;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}
