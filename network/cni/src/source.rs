//! Which pod may send what: each port of the bridge is bound to the hardware and IP address of its pod, or a pod could
//! speak for another, for the gateway or for anyone outside. Does I/O by netlink.
//!
//! One table in the bridge family, named as the network's. What comes in by a port and has other addresses than the
//! port's pod (in IPv4, in ARP, in IPv6), or is none of these, is dropped before the bridge learns from it. Router
//! advertisements, redirects and the search for neighbours come from addresses of a link, which no pod has here: they end
//! here too, and who is a neighbour is known without asking. An element's comment names its container. Called by `network`.

use std::net::IpAddr;

use linux::netlink::Mac;
use linux::nft::{
    Batch, Chain, Element, Expr, Family, Hook, Key, Meta, Nft, PayloadBase, Policy, Reg, Set, Verdict, hook, kind,
    priority, rule,
};

use crate::Error;

const PREROUTING: &str = "cni-prerouting";
const FROM_PODS: &str = "cni-from-pods";
/// The pods' ports of the bridge.
const PORTS: &str = "pod-ports";
/// Port, hardware address, IPv4 address.
const SOURCES: &str = "pod-sources";
/// The same with an IPv6 address.
const SOURCES6: &str = "pod-sources6";

const ETHERNET_IPV4: u16 = 0x0800;
const ETHERNET_ARP: u16 = 0x0806;
const ETHERNET_IPV6: u16 = 0x86dd;

/// A pod's port and addresses.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub owner: String,
    pub host_name: String,
    pub mac: Mac,
    pub addrs: Vec<IpAddr>,
}

/// The rules of one network.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub table: String,
}

impl Guard {
    /// Makes the table anew, for these pods, in one step. False: this kernel has no rules for bridges.
    pub(crate) fn ensure(&self, sources: &[Source]) -> Result<bool, Error> {
        let mut batch = Batch::new(Family::Bridge, &self.table);
        batch.add_table();
        batch.delete_table();
        batch.add_table();
        let first = Hook { kind: "filter", number: hook::PREROUTING, priority: priority::RAW, policy: Policy::Accept };
        batch.add_chain(&Chain { name: PREROUTING, hook: Some(first) });
        batch.add_chain(&Chain { name: FROM_PODS, hook: None });
        batch.add_set(&Set::new(SOURCES, &[kind::IFNAME, kind::ETHERNET, kind::IPV4]));
        batch.add_set(&Set::new(SOURCES6, &[kind::IFNAME, kind::ETHERNET, kind::IPV6]));
        batch.add_set(&Set::new(PORTS, &[kind::IFNAME]));
        batch.add_elements(PORTS, sources.iter().map(Source::port));
        sources.iter().for_each(|source| source.add_elements(&mut batch));
        let go = Expr::Verdict(Verdict::Goto(FROM_PODS.to_owned()));
        let lookup = Expr::Lookup { set: PORTS.to_owned(), sreg: Reg(0), dreg: None, invert: false };
        batch.add_rule(PREROUTING, &[Expr::Meta { key: Meta::IifName, dreg: Reg(0) }, lookup, go], None);
        // Offsets: in the Ethernet header the source, in IPv4 and IPv6 the source, in ARP the sender's both.
        let (link, network) = (PayloadBase::Link, PayloadBase::Network);
        let accept = || vec![Expr::Verdict(Verdict::Accept)];
        let exprs = rule::all([rule::ethernet_is(ETHERNET_IPV4), is_pods(link, 6, (12, 4)), accept()]);
        batch.add_rule(FROM_PODS, &exprs, None);
        let arp = rule::ethernet_is(ETHERNET_ARP);
        let exprs = rule::all([arp, is_pods(link, 6, (14, 4)), is_pods(network, 8, (14, 4)), accept()]);
        batch.add_rule(FROM_PODS, &exprs, None);
        let exprs = rule::all([rule::ethernet_is(ETHERNET_IPV6), is_pods(link, 6, (8, 16)), accept()]);
        batch.add_rule(FROM_PODS, &exprs, None);
        batch.add_rule(FROM_PODS, &[Expr::Verdict(Verdict::Drop)], Some("from others' addresses"));
        match Nft::open()?.commit(batch) {
            Err(e) if matches!(e.errno(), EAFNOSUPPORT | EOPNOTSUPP | ENOENT) => Ok(false),
            answer => Ok(answer.map(|()| true)?),
        }
    }

    /// Lets a pod send from its addresses. The port need not be there yet.
    pub(crate) fn admit(&self, source: &Source) -> Result<(), Error> {
        let mut batch = Batch::new(Family::Bridge, &self.table);
        batch.add_elements(PORTS, [source.port()]);
        source.add_elements(&mut batch);
        Ok(Nft::open()?.commit(batch)?)
    }

    /// Forgets the containers that `stale` picks by their owner name.
    pub(crate) fn forget(&self, stale: impl Fn(&str) -> bool) -> Result<(), Error> {
        let mut nft = Nft::open()?;
        let mut batch = Batch::new(Family::Bridge, &self.table);
        for set in [PORTS, SOURCES, SOURCES6] {
            let there = match nft.elements(Family::Bridge, &self.table, set) {
                Err(e) if e.is_missing() => return Ok(()),
                there => there?,
            };
            let gone = there.iter().filter(|e| e.comment.as_deref().is_none_or(&stale));
            batch.delete_elements(set, gone.map(|e| Element::new(Key::from_bytes(&e.key))));
        }
        Ok(nft.commit(batch)?)
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        match Nft::open()?.remove_table(Family::Bridge, &self.table) {
            Err(e) if matches!(e.errno(), EAFNOSUPPORT | EOPNOTSUPP | ENOENT) => Ok(()),
            answer => Ok(answer?),
        }
    }
}

impl Source {
    fn port(&self) -> Element<'_> {
        Element { comment: Some(&self.owner), ..Element::new(Key::new().name(&self.host_name)) }
    }

    fn add_elements(&self, batch: &mut Batch) {
        for addr in &self.addrs {
            let key = Key::new().name(&self.host_name).hardware(self.mac.0).addr(*addr);
            let set = if addr.is_ipv6() { SOURCES6 } else { SOURCES };
            batch.add_elements(set, [Element { comment: Some(&self.owner), ..Element::new(key) }]);
        }
    }
}

/// The port, the hardware address at `hardware` and the IP address at `offset` of the network header are one pod's.
fn is_pods(base: PayloadBase, hardware: u32, (offset, len): (u32, u32)) -> Vec<Expr> {
    let set = if len == 16 { SOURCES6 } else { SOURCES }.to_owned();
    vec![
        Expr::Meta { key: Meta::IifName, dreg: Reg(0) },
        Expr::Payload { base, offset: hardware, len: 6, dreg: Reg(4) },
        Expr::Payload { base: PayloadBase::Network, offset, len, dreg: Reg(6) },
        Expr::Lookup { set, sreg: Reg(0), dreg: None, invert: false },
    ]
}

const EAFNOSUPPORT: i32 = 97;
const EOPNOTSUPP: i32 = 95;
const ENOENT: i32 = 2;
