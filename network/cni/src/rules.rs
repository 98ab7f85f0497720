//! Our nftables tables: masquerading of what leaves the pod network, and host ports. Does I/O by netlink.
//!
//! One table a network and family, named by its configuration. Host ports are two maps, with and without the host's
//! address; an element's comment names its container, so they are found again without any other record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux::conntrack::Conntrack;
use linux::nft::{
    Batch, Chain, Data, Element, ElementInfo, Expr, Family, Hook, Key, Meta, NatKind, Nft, Policy, Reg, Set, Verdict,
    hook, kind, nat, priority, rule,
};
use meta::Prefix;

use crate::Error;
use crate::types::{PortMapping, Protocol};

/// The chains of each of our tables. `POSTROUTING` also tells one of our tables from others'.
pub(crate) const POSTROUTING: &str = "cni-postrouting";
const PREROUTING: &str = "cni-prerouting";
const OUTPUT: &str = "cni-output";
const RAW: &str = "cni-raw";
const PORTS: &str = "cni-ports";

const NOT_MASQUERADED: &str = "not-masqueraded";
const HOST_PORTS: &str = "host-ports";
const HOST_ADDRESS_PORTS: &str = "host-address-ports";
const HAIRPIN: &str = "hairpin";

const LOOPBACK: [Prefix; 2] = [
    Prefix { addr: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), len: 8 },
    Prefix { addr: IpAddr::V6(Ipv6Addr::LOCALHOST), len: 128 },
];
const MULTICAST: [Prefix; 2] = [
    Prefix { addr: IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), len: 4 },
    Prefix { addr: IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), len: 8 },
];
const UDP: u8 = 17;

/// The table of one network in one family.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub name: String,
    pub v6: bool,
    pub bridge: String,
    /// Ranges of which nobody sends by another way than the bridge.
    pub own: Vec<Prefix>,
}

impl Table {
    /// Makes the table and its rules, keeping the host ports that are there. With `masquerade`, what the subnet
    /// sends elsewhere than to these ranges takes the host's address.
    pub(crate) fn ensure(&self, masquerade: Option<(Prefix, &[Prefix])>) -> Result<(), Error> {
        let mut batch = Batch::new(self.family(), &self.name);
        self.structure(&mut batch);
        batch.flush_set(NOT_MASQUERADED);
        let mut never = vec![MULTICAST[usize::from(self.v6)]];
        if let Some((subnet, ranges)) = masquerade {
            never.extend(ranges);
            never.push(subnet.network());
        }
        for range in merged(never, self.v6) {
            batch.add_elements(NOT_MASQUERADED, Element::range(range));
        }
        self.add_port_rules(&mut batch);
        self.add_postrouting_rules(&mut batch, masquerade.map(|(subnet, _)| subnet));
        Ok(Nft::open()?.commit(batch)?)
    }

    fn family(&self) -> Family {
        if self.v6 { Family::Ip6 } else { Family::Ip }
    }

    fn structure(&self, batch: &mut Batch) {
        let base = |kind, number, priority| Some(Hook { kind, number, priority, policy: Policy::Accept });
        batch.add_table();
        let chains = [
            (RAW, base("filter", hook::PREROUTING, priority::RAW)),
            (PREROUTING, base("nat", hook::PREROUTING, priority::DSTNAT)),
            (OUTPUT, base("nat", hook::OUTPUT, priority::DSTNAT)),
            (POSTROUTING, base("nat", hook::POSTROUTING, priority::SRCNAT)),
            (PORTS, None),
        ];
        for (name, hook) in chains {
            batch.add_chain(&Chain { name, hook });
            batch.flush_chain(name);
        }
        let ip = if self.v6 { kind::IPV6 } else { kind::IPV4 };
        let to = [ip, kind::SERVICE];
        batch.add_set(&Set { interval: true, ..Set::new(NOT_MASQUERADED, &[ip]) });
        batch.add_set(&Set::map(HOST_PORTS, &[kind::PROTOCOL, kind::SERVICE], &to));
        batch.add_set(&Set::map(HOST_ADDRESS_PORTS, &[ip, kind::PROTOCOL, kind::SERVICE], &to));
        batch.add_set(&Set::new(HAIRPIN, &[ip, ip]));
    }

    fn add_port_rules(&self, batch: &mut Batch) {
        // Host ports answer on 127.0.0.1 too, for which the bridge lets loopback addresses through; pods must not
        // reach what listens there by that door.
        let from_pods = rule::interface_is(Meta::IifName, &self.bridge, true);
        let drop = || vec![Expr::Verdict(Verdict::Drop)];
        let loopback = rule::destination_in(self.loopback(), true);
        batch.add_rule(RAW, &rule::all([from_pods, loopback, drop()]), None);
        // A neighbour who says that he is a pod would have what firewalls let pods do.
        for range in &self.own {
            let elsewhere = [&*self.bridge, "lo"].map(|link| rule::interface_is(Meta::IifName, link, false)).concat();
            let exprs = rule::all([elsewhere, rule::source_in(*range, true), drop()]);
            batch.add_rule(RAW, &exprs, Some("in the name of pods"));
        }

        for chain in [PREROUTING, OUTPUT] {
            let jump = vec![Expr::Verdict(Verdict::Jump(PORTS.to_owned()))];
            batch.add_rule(chain, &rule::all([rule::destination_is_local(), jump]), None);
        }
        // An IPv6 address takes four registers.
        let words = if self.v6 { 4 } else { 1 };
        let (protocol, port, addr) = (Reg(words), Reg(words + 1), Reg(8));
        let family = if self.v6 { 10 } else { 2 };
        let dnat = Expr::Nat { kind: NatKind::Destination, family, addr, port: Some(Reg(8 + words)), flags: 0 };
        let lookup = |set: &str, sreg| Expr::Lookup { set: set.to_owned(), sreg, dreg: Some(addr), invert: false };
        let key =
            [rule::load_destination(self.v6, Reg(0)), rule::load_protocol(protocol), rule::load_destination_port(port)];
        let by_address = [&key[..], &[lookup(HOST_ADDRESS_PORTS, Reg(0)), dnat.clone()]].concat();
        let by_port = [&key[1..], &[lookup(HOST_PORTS, protocol), dnat]].concat();
        batch.add_rule(PORTS, &by_address, None);
        batch.add_rule(PORTS, &by_port, None);
    }

    fn add_postrouting_rules(&self, batch: &mut Batch, subnet: Option<Prefix>) {
        let masquerade = || vec![Expr::Masquerade { flags: nat::RANDOM_FULLY }];
        // A pod that reaches itself by a host port would get a packet from its own address, and drop it.
        let to_itself = vec![
            rule::load_source(self.v6, Reg(0)),
            rule::load_destination(self.v6, Reg(if self.v6 { 4 } else { 1 })),
            Expr::Lookup { set: HAIRPIN.to_owned(), sreg: Reg(0), dreg: None, invert: false },
        ];
        batch.add_rule(POSTROUTING, &rule::all([rule::ct_is_dnat(true), to_itself, masquerade()]), None);
        let to_pods = rule::interface_is(Meta::OifName, &self.bridge, true);
        let from_loopback = rule::source_in(self.loopback(), true);
        batch.add_rule(POSTROUTING, &rule::all([to_pods, from_loopback, masquerade()]), None);
        if let Some(subnet) = subnet {
            let outside = rule::destination_in_set(self.v6, NOT_MASQUERADED, false);
            let elsewhere = rule::interface_is(Meta::OifName, &self.bridge, false);
            let exprs = rule::all([rule::source_in(subnet, true), outside, elsewhere, masquerade()]);
            batch.add_rule(POSTROUTING, &exprs, None);
        }
    }

    fn loopback(&self) -> Prefix {
        LOOPBACK[usize::from(self.v6)]
    }

    /// Opens host ports that lead to a pod. A port that another container has is refused.
    pub(crate) fn open_ports(&self, owner: &str, pod: IpAddr, ports: &[PortMapping]) -> Result<(), Error> {
        let ports: Vec<_> = ports.iter().filter(|p| p.host_port != 0).collect();
        if ports.is_empty() {
            return Ok(());
        }
        let mut nft = Nft::open()?;
        let mut batch = Batch::new(self.family(), &self.name);
        for set in [HOST_PORTS, HOST_ADDRESS_PORTS] {
            let wanted: Vec<_> = ports.iter().filter_map(|p| element_of(p, pod, set).map(|e| (*p, e))).collect();
            let there = nft.elements(self.family(), &self.name, set)?;
            for (port, (key, _)) in &wanted {
                if let Some(e) = there.iter().find(|e| e.key == key.as_bytes()) {
                    let other = e.comment.clone().unwrap_or_default();
                    if other != owner {
                        return Err(Error::PortTaken { port: port.host_port.to_string(), owner: other });
                    }
                }
            }
            let mine: Vec<_> = there.iter().filter(|e| e.comment.as_deref() == Some(owner)).collect();
            batch.delete_elements(set, mine.iter().map(|e| Element::new(Key::from_bytes(&e.key))));
            batch.add_elements(
                set,
                wanted.iter().map(|(_, (key, data))| Element { comment: Some(owner), ..Element::with(*key, data) }),
            );
        }
        let hairpin = Key::new().addr(pod).addr(pod);
        batch.add_elements(HAIRPIN, [Element { comment: Some(owner), ..Element::new(hairpin) }]);
        nft.commit(batch)?;
        forget_udp(&ports.iter().filter(|p| p.protocol == Protocol::Udp).map(|p| p.host_port).collect::<Vec<_>>())
    }

    /// Closes the host ports of the containers that `stale` picks by their owner name.
    pub(crate) fn close_ports(&self, stale: impl Fn(&str) -> bool) -> Result<(), Error> {
        let mut nft = Nft::open()?;
        let mut batch = Batch::new(self.family(), &self.name);
        let mut udp = Vec::new();
        for set in [HOST_PORTS, HOST_ADDRESS_PORTS, HAIRPIN] {
            let there = match nft.elements(self.family(), &self.name, set) {
                Err(e) if e.is_missing() => return Ok(()), // no table, no ports
                there => there?,
            };
            let gone: Vec<_> = there.iter().filter(|e| e.comment.as_deref().is_none_or(&stale)).collect();
            udp.extend(gone.iter().filter(|_| set != HAIRPIN).filter_map(|e| udp_port(e)));
            batch.delete_elements(set, gone.iter().map(|e| Element::new(Key::from_bytes(&e.key))));
        }
        nft.commit(batch)?;
        forget_udp(&udp)
    }

    /// Removes the table.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let mut nft = Nft::open()?;
        if nft.has_table(self.family(), &self.name)? {
            nft.remove_table(self.family(), &self.name)?;
        }
        Ok(())
    }
}

/// Whether another network of ours is on this host.
pub(crate) fn others_exist(own: &str) -> Result<bool, Error> {
    Ok(Nft::open()?.chains()?.iter().any(|c| c.name == POSTROUTING && c.table != own))
}

/// The map element of a port, when it belongs into this map.
fn element_of(port: &PortMapping, pod: IpAddr, set: &str) -> Option<(Key, Data)> {
    let key = match (set, port.host_ip) {
        // 0.0.0.0 are all addresses of IPv4, :: all of IPv6.
        (HOST_PORTS, Some(all)) if all.is_unspecified() && all.is_ipv6() == pod.is_ipv6() => Key::new(),
        (HOST_PORTS, None) => Key::new(),
        (HOST_ADDRESS_PORTS, Some(address)) if !address.is_unspecified() && address.is_ipv6() == pod.is_ipv6() => {
            Key::new().addr(address)
        }
        _ => return None,
    };
    let to = Key::new().addr(pod).port(port.container_port);
    Some((key.protocol(port.protocol.number()).port(port.host_port), Data::Value(to)))
}

/// The UDP port of an element: its last two fields are protocol and port.
fn udp_port(element: &ElementInfo) -> Option<u16> {
    let at = element.key.len().checked_sub(8)?;
    (element.key[at] == UDP).then(|| u16::from_be_bytes([element.key[at + 4], element.key[at + 5]]))
}

/// UDP flows keep their translation while packets come: those to these ports must find the new one.
fn forget_udp(ports: &[u16]) -> Result<(), Error> {
    if !ports.is_empty() {
        Conntrack::open()?.forget_where(UDP, |flow| ports.contains(&flow.original.destination_port))?;
    }
    Ok(())
}

/// Ranges without those that lie inside another: an interval set takes no overlaps.
fn merged(mut ranges: Vec<Prefix>, v6: bool) -> Vec<Prefix> {
    ranges.sort_by_key(|r| r.len);
    let mut kept: Vec<Prefix> = Vec::new();
    for range in ranges {
        if range.is_ipv6() == v6 && !kept.iter().any(|k| k.contains(range.addr)) {
            kept.push(range.network());
        }
    }
    kept
}
