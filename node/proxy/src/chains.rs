//! The chains of the table: the fixed ones, and those that pick an endpoint among so many. Pure.
//!
//! Register layout of a pick: protocol, Service address, Service port, number; the endpoint's address and port after
//! that. An IPv6 address takes four registers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use linux::nft::{
    self, Batch, DynsetOp, Element, Expr, Family, Hook, Key, Meta, NatKind, Policy, Reg, RejectWith, Set, Verdict,
    hook, kind, nat, priority, rule,
};
use meta::Prefix;

use crate::config::{Config, LocalDetector};
use crate::service::VirtualServer;

/// The names of sets and maps, as upstream's nftables mode has them where it has the same.
pub mod sets {
    pub const SERVICES: &str = "service-ips";
    pub const NODE_PORTS: &str = "service-nodeports";
    pub const ENDPOINTS: &str = "endpoints";
    pub const HAIRPIN: &str = "hairpin-connections";
    pub const STICKY: &str = "affinity";
    pub const STICKY_ENDPOINTS: &str = "affinity-endpoints";
    pub const NO_ENDPOINTS: &str = "no-endpoint-services";
    pub const NO_ENDPOINTS_NODE_PORTS: &str = "no-endpoint-nodeports";
    pub const CLUSTER_IPS: &str = "cluster-ips";
    pub const FIREWALL: &str = "firewall-ips";
    pub const PODS: &str = "pod-ranges";
    pub const NODE_PORT_ADDRESSES: &str = "nodeport-addresses";
    pub const SERVICE_CIDRS: &str = "service-cidrs";
    pub const LAST: &str = "service-cidrs-last";
}

pub const REJECT: &str = "reject-chain";
const SERVICES_CHAIN: &str = "services";
const CHECK_CHAIN: &str = "service-endpoints-check";
const FIREWALL_CHAIN: &str = "firewall-check";

/// Numbers of endpoints of this node start here.
pub const LOCAL_OFFSET: u32 = 1 << 16;
/// How many clients are remembered for session affinity, over all Services; about 200 bytes each.
const MOST_CLIENTS: u32 = 262_144;
/// The state bits of a connection's first packet.
const CT_NEW: u32 = 8;

/// How a chain knows which Service a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// The packet says it: it goes to the Service's own address. All Services share such chains.
    ClusterIp,
    /// By another address or a node port. The Service's own is written into the chain: a map that gives it would be
    /// fewer chains, but `nft` before 1.0.7 aborts when it lists a key that is made of another map's answer.
    Alias(VirtualServer),
}

/// Which endpoints, and whether the client's address is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Any endpoint; the caller has decided about masquerading.
    Cluster,
    /// Endpoints of this node only.
    Local,
    /// Any endpoint, masqueraded: from outside, by whichever node.
    External,
    /// Endpoints of this node for those outside; any for pods and for the host itself.
    ExternalLocal,
}

/// A chain that picks an endpoint. Many Services share it: what differs is in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pick {
    pub via: Via,
    pub mode: Mode,
    /// How many endpoints there are in all.
    pub cluster: u32,
    /// How many are on this node.
    pub local: u32,
    /// Seconds that a client keeps its endpoint; 0: it doesn't.
    pub affinity: u32,
}

/// A chain that is there because elements lead to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    Pick(Pick),
    /// Lets these sources through and drops the others.
    Firewall(Arc<Vec<Prefix>>),
}

impl Chain {
    pub fn name(&self) -> String {
        match self {
            Chain::Pick(pick) => pick.name(),
            Chain::Firewall(ranges) => {
                let text: Vec<_> = ranges.iter().map(Prefix::to_string).collect();
                format!("firewall-{}", text.join("_").replace('/', "-").replace(':', "."))
            }
        }
    }

    /// Another chain that this one goes to.
    pub fn needs(&self) -> Option<Chain> {
        match self {
            Chain::Pick(pick) if pick.mode == Mode::ExternalLocal && pick.cluster > 0 => {
                Some(Chain::Pick(Pick { mode: Mode::Cluster, local: 0, ..*pick }))
            }
            _ => None,
        }
    }

    pub(crate) fn rules(&self, v6: bool, config: &Config) -> Vec<Vec<Expr>> {
        match self {
            Chain::Pick(pick) => pick.rules(v6, config),
            Chain::Firewall(ranges) => {
                let mut rules: Vec<_> = ranges
                    .iter()
                    .map(|r| rule::all([rule::source_in(*r, true), vec![Expr::Verdict(Verdict::Return)]]))
                    .collect();
                rules.push(vec![Expr::Verdict(Verdict::Drop)]);
                rules
            }
        }
    }
}

impl Pick {
    fn name(&self) -> String {
        let via = match self.via {
            Via::ClusterIp => "service".to_owned(),
            Via::Alias(own) => format!("alias-{}-{}-{}", own.addr, own.protocol, own.port).replace(':', "."),
        };
        let list = match self.mode {
            Mode::Cluster => format!("{}", self.cluster),
            Mode::Local => format!("local-{}", self.local),
            Mode::External => format!("external-{}", self.cluster),
            Mode::ExternalLocal => format!("external-{}-local-{}", self.cluster, self.local),
        };
        match self.affinity {
            0 => format!("{via}-{list}"),
            seconds => format!("{via}-{list}-affinity-{seconds}"),
        }
    }

    fn rules(&self, v6: bool, config: &Config) -> Vec<Vec<Expr>> {
        let mark = rule::set_mark(1 << config.iptables_masquerade_bit);
        match self.mode {
            Mode::Cluster => self.choose(v6, false),
            Mode::Local => self.choose(v6, true),
            Mode::External => {
                let mut rules = vec![mark];
                rules.extend(self.choose(v6, false));
                rules
            }
            Mode::ExternalLocal => {
                let mut rules = Vec::new();
                if let Some(any) = Chain::Pick(*self).needs() {
                    let go = vec![Expr::Verdict(Verdict::Goto(any.name()))];
                    rules.push(rule::all([from_pods(v6, config, true), go.clone()]));
                    rules.push(rule::all([rule::source_is_local(), mark, go]));
                }
                if self.local > 0 {
                    rules.extend(self.choose(v6, true));
                }
                rules
            }
        }
    }

    /// Draws an endpoint; a client that has one keeps it while it is there.
    fn choose(&self, v6: bool, local: bool) -> Vec<Vec<Expr>> {
        let words = words(v6);
        let (modulus, offset) = if local { (self.local, LOCAL_OFFSET) } else { (self.cluster, 0) };
        let (number, addr) = (Reg(2 + words), Reg(3 + words));
        let port = Reg(addr.0 + words);
        let draw = |mut exprs: Vec<Expr>| {
            exprs.push(Expr::Random { dreg: number, modulus, offset });
            exprs.push(lookup(sets::ENDPOINTS, Reg(0), Some(addr)));
            exprs
        };
        let to = |addr, port| Expr::Nat {
            kind: NatKind::Destination,
            family: if v6 { 10 } else { 2 },
            addr,
            port: Some(port),
            flags: 0,
        };
        if self.affinity == 0 {
            let mut exprs = draw(self.key(v6, Reg(0)));
            exprs.push(to(addr, port));
            return vec![exprs];
        }
        // The endpoint sits in the last registers; the client's key is built in the first as often as it is needed.
        let (kept, kept_port) = (Reg(15 - words), Reg(15));
        let client = |mut exprs: Vec<Expr>| {
            exprs.extend(self.key(v6, Reg(0)));
            exprs.push(rule::load_source(v6, Reg(2 + words)));
            exprs
        };
        let dynset =
            |op, timeout| Expr::Dynset { set: sets::STICKY.to_owned(), op, key: Reg(0), data: Some(kept), timeout };
        let milliseconds = Some(u64::from(self.affinity) * 1000);
        // Noted, the endpoint is looked up once more, for the address to be rewritten.
        let keep = |exprs: Vec<Expr>| {
            let mut exprs = client(exprs);
            exprs.push(dynset(DynsetOp::Update, milliseconds));
            let mut exprs = client(exprs);
            exprs.extend([lookup(sets::STICKY, Reg(0), Some(kept)), to(kept, kept_port)]);
            exprs
        };
        let mut again = client(stand_in(v6, kept));
        again.push(lookup(sets::STICKY, Reg(0), Some(Reg(1))));
        again.extend(moved(v6, kept));
        // Is it still an endpoint? The list's name goes right before it.
        let name = Reg(kept.0 - (words + 3));
        again.extend(self.key(v6, name));
        let scope = u32::from(local).to_ne_bytes().to_vec();
        again.push(Expr::Immediate { dreg: Reg(kept.0 - 1), data: scope });
        again.push(lookup(sets::STICKY_ENDPOINTS, name, None));

        // Deleting wants data too, whatever it is.
        let mut forget = client(stand_in(v6, kept));
        forget.push(dynset(DynsetOp::Delete, None));

        let mut fresh = stand_in(v6, kept);
        fresh.extend(self.key(v6, Reg(0)));
        fresh.push(Expr::Random { dreg: number, modulus, offset });
        fresh.push(lookup(sets::ENDPOINTS, Reg(0), Some(Reg(1))));
        fresh.extend(moved(v6, kept));
        vec![keep(again), forget, keep(fresh)]
    }

    /// Puts protocol, Service address and Service port at `base`.
    fn key(&self, v6: bool, base: Reg) -> Vec<Expr> {
        let words = words(v6);
        let (vip, port) = (Reg(base.0 + 1), Reg(base.0 + 1 + words));
        match self.via {
            Via::ClusterIp => {
                vec![rule::load_protocol(base), rule::load_destination(v6, vip), rule::load_destination_port(port)]
            }
            Via::Alias(own) => vec![
                Expr::Immediate { dreg: base, data: vec![own.protocol] },
                Expr::Immediate { dreg: vip, data: address_bytes(own.addr) },
                Expr::Immediate { dreg: port, data: own.port.to_be_bytes().to_vec() },
            ],
        }
    }
}

fn address_bytes(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn words(v6: bool) -> u8 {
    if v6 { 4 } else { 1 }
}

/// Puts the packet's own address and port where an endpoint is to be. `nft` 1.0.6 can't tell how long a value out of a map
/// is, and ends itself at a statement that stores one in another map; it never sees that [`moved`] changes these. Every
/// register that is moved must be written before.
fn stand_in(v6: bool, kept: Reg) -> Vec<Expr> {
    let mut exprs = vec![rule::load_destination(v6, kept), rule::load_destination_port(Reg(kept.0 + words(v6)))];
    if v6 {
        exprs.push(rule::load_destination_port(Reg(MOVED_WORDS)));
    }
    exprs
}

/// 32-bit registers that one step of a rule moves: what the kernel's mask is long.
const MOVED_WORDS: u8 = 4;

/// Moves what a map gave to the second register, and the first with it, so that an endpoint begins at `kept`.
fn moved(v6: bool, kept: Reg) -> Vec<Expr> {
    let all = words(v6) + 2;
    let parts = (0..all).step_by(usize::from(MOVED_WORDS));
    let moved = parts.map(|at| {
        let bytes = usize::from((all - at).min(MOVED_WORDS)) * 4;
        Expr::Bitwise { sreg: Reg(at), dreg: Reg(kept.0 - 1 + at), mask: vec![0xff; bytes], xor: vec![0; bytes] }
    });
    moved.collect()
}

fn lookup(set: &str, sreg: Reg, dreg: Option<Reg>) -> Expr {
    Expr::Lookup { set: set.to_owned(), sreg, dreg, invert: false }
}

/// The packet comes from a pod (of this node, where the detector can tell), or doesn't.
fn from_pods(v6: bool, config: &Config, yes: bool) -> Vec<Expr> {
    match &config.detect_local {
        LocalDetector::ClusterCidr | LocalDetector::NodeCidr => rule::source_in_set(v6, sets::PODS, yes),
        LocalDetector::BridgeInterface(name) => rule::interface_is(Meta::IifName, name, yes),
    }
}

/// What is told from others by its range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// By which pods are told from others.
    pub pods: Vec<Prefix>,
    /// Of Services, none within another.
    pub services: Vec<Prefix>,
}

/// The table, its sets and fixed chains, in an empty table.
pub(crate) fn skeleton(batch: &mut Batch, v6: bool, config: &Config, ranges: &Ranges) {
    batch.add_table();
    let base = |kind, number, priority| Some(Hook { kind, number, priority, policy: Policy::Accept });
    let chains = [
        // Before translation, so that a load balancer's address is still there to see.
        ("firewall-prerouting", base("filter", hook::PREROUTING, priority::DSTNAT - 10)),
        ("firewall-output", base("filter", hook::OUTPUT, priority::DSTNAT - 10)),
        ("nat-prerouting", base("nat", hook::PREROUTING, priority::DSTNAT)),
        ("nat-output", base("nat", hook::OUTPUT, priority::DSTNAT)),
        ("nat-postrouting", base("nat", hook::POSTROUTING, priority::SRCNAT)),
        // After translation, so that what still has a Service's address leads nowhere. Also before routing: a host
        // without a route to Service addresses refuses as quickly as others.
        ("filter-prerouting", base("filter", hook::PREROUTING, priority::DSTNAT + 10)),
        ("filter-output", base("filter", hook::OUTPUT, priority::DSTNAT + 10)),
        (FIREWALL_CHAIN, None),
        (SERVICES_CHAIN, None),
        (CHECK_CHAIN, None),
        (REJECT, None),
    ];
    for (name, hook) in chains {
        batch.add_chain(&nft::Chain { name, hook });
    }
    add_sets(batch, v6);
    for range in ranges.pods.iter().filter(|p| p.addr.is_ipv6() == v6) {
        batch.add_elements(sets::PODS, Element::range(*range));
    }
    for range in ranges.services.iter().filter(|p| p.addr.is_ipv6() == v6) {
        batch.add_elements(sets::SERVICE_CIDRS, Element::range(*range));
    }
    // No Service is given it: an API server that listens on loopback has it, for its pods and further nodes of its host.
    let last: BTreeSet<IpAddr> = ranges.services.iter().map(Prefix::last).filter(|ip| ip.is_ipv6() == v6).collect();
    batch.add_elements(sets::LAST, last.into_iter().map(|ip| Element::new(Key::new().addr(ip))));
    for range in config.nodeport_addresses.iter().filter(|p| p.addr.is_ipv6() == v6) {
        batch.add_elements(sets::NODE_PORT_ADDRESSES, Element::range(*range));
    }
    add_hooks(batch, v6, config);
    add_dispatch(batch, v6, config);
}

/// Whether a chain is there whatever Services there are.
pub(crate) fn is_fixed(name: &str) -> bool {
    let hooks = ["firewall-prerouting", "firewall-output", "nat-", "filter-prerouting", "filter-output"];
    [FIREWALL_CHAIN, SERVICES_CHAIN, CHECK_CHAIN, REJECT].contains(&name) || hooks.iter().any(|h| name.starts_with(h))
}

fn add_sets(batch: &mut Batch, v6: bool) {
    let ip = if v6 { kind::IPV6 } else { kind::IPV4 };
    let (protocol, port, number) = (kind::PROTOCOL, kind::SERVICE, kind::MARK);
    batch.add_set(&Set::verdict_map(sets::SERVICES, &[ip, protocol, port]));
    batch.add_set(&Set::verdict_map(sets::NODE_PORTS, &[protocol, port]));
    batch.add_set(&Set::map(sets::ENDPOINTS, &[protocol, ip, port, number], &[ip, port]));
    batch.add_set(&Set::new(sets::HAIRPIN, &[ip, ip]));
    batch.add_set(&Set {
        dynamic: true,
        timeout: Some(0),
        size: Some(MOST_CLIENTS),
        ..Set::map(sets::STICKY, &[protocol, ip, port, ip], &[ip, port])
    });
    batch.add_set(&Set::new(sets::STICKY_ENDPOINTS, &[protocol, ip, port, number, ip, port]));
    batch.add_set(&Set::verdict_map(sets::NO_ENDPOINTS, &[ip, protocol, port]));
    batch.add_set(&Set::verdict_map(sets::NO_ENDPOINTS_NODE_PORTS, &[protocol, port]));
    batch.add_set(&Set::new(sets::CLUSTER_IPS, &[ip]));
    batch.add_set(&Set::verdict_map(sets::FIREWALL, &[ip, protocol, port]));
    batch.add_set(&Set { interval: true, ..Set::new(sets::PODS, &[ip]) });
    batch.add_set(&Set { interval: true, ..Set::new(sets::NODE_PORT_ADDRESSES, &[ip]) });
    batch.add_set(&Set { interval: true, ..Set::new(sets::SERVICE_CIDRS, &[ip]) });
    batch.add_set(&Set::new(sets::LAST, &[ip]));
}

fn add_hooks(batch: &mut Batch, v6: bool, config: &Config) {
    let jump = |chain: &str| vec![Expr::Verdict(Verdict::Jump(chain.to_owned()))];
    for (chain, to) in [
        ("firewall-prerouting", FIREWALL_CHAIN),
        ("firewall-output", FIREWALL_CHAIN),
        ("filter-prerouting", CHECK_CHAIN),
        ("filter-output", CHECK_CHAIN),
    ] {
        batch.add_rule(chain, &rule::all([rule::ct_state(CT_NEW, true), jump(to)]), None);
    }
    batch.add_rule("nat-prerouting", &jump(SERVICES_CHAIN), None);
    batch.add_rule("nat-output", &jump(SERVICES_CHAIN), None);

    let masquerade = || vec![Expr::Masquerade { flags: nat::RANDOM_FULLY }];
    let words = words(v6);
    let itself = vec![
        rule::load_source(v6, Reg(0)),
        rule::load_destination(v6, Reg(words)),
        lookup(sets::HAIRPIN, Reg(0), None),
    ];
    let exprs = rule::all([rule::ct_is_dnat(true), itself, masquerade()]);
    batch.add_rule("nat-postrouting", &exprs, Some("a pod that reaches itself by a Service"));
    let bit = 1 << config.iptables_masquerade_bit;
    let exprs = rule::all([rule::mark(bit, true), rule::clear_mark(bit), masquerade()]);
    batch.add_rule("nat-postrouting", &exprs, None);

    batch.add_rule(REJECT, &rule::all([rule::protocol_is(6), vec![Expr::Reject(RejectWith::TcpReset)]]), None);
    let unreachable = if v6 { 4 } else { 3 };
    batch.add_rule(REJECT, &[Expr::Reject(RejectWith::Icmp(unreachable))], None);
}

fn add_dispatch(batch: &mut Batch, v6: bool, config: &Config) {
    let words = words(v6);
    let by_address = |map: &str| {
        vec![
            rule::load_destination(v6, Reg(0)),
            rule::load_protocol(Reg(words)),
            rule::load_destination_port(Reg(words + 1)),
            Expr::VerdictMap { set: map.to_owned(), sreg: Reg(0) },
        ]
    };
    let by_port = |map: &str| {
        let mut exprs = node_port_address(v6, config);
        exprs.extend([
            rule::load_protocol(Reg(0)),
            rule::load_destination_port(Reg(1)),
            Expr::VerdictMap { set: map.to_owned(), sreg: Reg(0) },
        ]);
        exprs
    };
    let cluster_ip = || rule::destination_in_set(v6, sets::CLUSTER_IPS, true);
    let mark = rule::set_mark(1 << config.iptables_masquerade_bit);
    if config.masquerade_all {
        batch.add_rule(SERVICES_CHAIN, &rule::all([cluster_ip(), mark]), None);
    } else if config.detect_local != LocalDetector::ClusterCidr || !config.cluster_cidr.is_empty() {
        let exprs = rule::all([cluster_ip(), from_pods(v6, config, false), mark]);
        batch.add_rule(SERVICES_CHAIN, &exprs, Some("to Services from elsewhere than pods"));
    }
    batch.add_rule(SERVICES_CHAIN, &by_address(sets::SERVICES), None);
    batch.add_rule(SERVICES_CHAIN, &by_port(sets::NODE_PORTS), None);

    batch.add_rule(FIREWALL_CHAIN, &by_address(sets::FIREWALL), None);

    batch.add_rule(CHECK_CHAIN, &by_address(sets::NO_ENDPOINTS), None);
    batch.add_rule(CHECK_CHAIN, &by_port(sets::NO_ENDPOINTS_NODE_PORTS), None);
    let go = vec![Expr::Verdict(Verdict::Goto(REJECT.to_owned()))];
    batch.add_rule(CHECK_CHAIN, &rule::all([cluster_ip(), go]), Some("ports that Services don't have"));
    let of_services = || rule::destination_in_set(v6, sets::SERVICE_CIDRS, true);
    let own = rule::all([of_services(), rule::destination_is_local(), vec![Expr::Verdict(Verdict::Return)]]);
    batch.add_rule(CHECK_CHAIN, &own, Some("what the host has itself, as DNS of the node"));
    let not_last = rule::destination_in_set(v6, sets::LAST, false);
    let nobodys = rule::all([of_services(), not_last, vec![Expr::Verdict(Verdict::Drop)]]);
    batch.add_rule(CHECK_CHAIN, &nobodys, Some("addresses that no Service has"));
}

/// The packet is for an address of the host that answers on node ports.
fn node_port_address(v6: bool, config: &Config) -> Vec<Expr> {
    let mut exprs = rule::destination_is_local();
    if !config.nodeport_addresses.is_empty() {
        exprs.extend(rule::destination_in_set(v6, sets::NODE_PORT_ADDRESSES, true));
    }
    let loopback = if v6 { "::1/128" } else { "127.0.0.0/8" };
    // Nothing translates ::1 to a pod: the kernel lets it go nowhere but to the loopback interface.
    if v6 || !config.iptables_localhost_nodeports {
        exprs.extend(rule::destination_in(loopback.parse().expect("a range"), false));
    }
    exprs
}

/// Makes a chain and fills it.
pub(crate) fn add(batch: &mut Batch, chain: &Chain, v6: bool, config: &Config) {
    let name = chain.name();
    batch.add_chain(&nft::Chain { name: &name, hook: None });
    for exprs in chain.rules(v6, config) {
        batch.add_rule(&name, &exprs, None);
    }
}

/// The family of a table.
pub(crate) fn family(v6: bool) -> Family {
    if v6 { Family::Ip6 } else { Family::Ip }
}
