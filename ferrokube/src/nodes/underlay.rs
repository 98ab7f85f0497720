//! The link between the nodes of a host: a bridge on which the host has the first address, a cable for each node, and a
//! table that lets them out under the host's own address. Which range it has is decided once ([`choose`]): one that
//! nothing else on the host means. I/O: netlink, nftables. Callers: the keeper, the commands, `reset`.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use linux::netlink::{LinkKind, Mac, Neighbour, NewVeth, Route, Rtnl};
use linux::netns::NetNs;
use linux::nft::{Batch, Chain, Expr, Family, Hook, Meta, Nft, Policy, hook, nat, priority, rule};
use meta::Prefix;

use crate::config::record::{Node, Record};
use crate::config::{Host, known, vacant};
use crate::fault::Fault;

/// The link of a node's, as it finds it.
const ETH: &str = "eth0";
const POSTROUTING: &str = "postrouting";
/// Bytes of a packet where the host's own way out says nothing, and the least that it may say.
const MTU: u32 = 1500;
const LEAST_MTU: u32 = 1280;

/// The link that the nodes share.
pub fn bridge(host: &Host) -> String {
    format!("{}-nodes", host.bridge())
}

/// The host's end of a node's cable.
fn cable(host: &Host, node: &Node) -> String {
    format!("{}-node{}", host.bridge(), node.number)
}

fn table(host: &Host) -> String {
    format!("{}-nodes", host.tag())
}

/// What a range may not meet.
struct Taken {
    range: Prefix,
    what: String,
}

/// An underlay without nodes: of the range that is asked for, or the first of ours that is free. One of IPv6 is always
/// ours: nobody has to remember it.
pub fn choose(host: &Host, asked: Option<Prefix>) -> Result<Record> {
    let taken = taken(host)?;
    let range6 = host.cluster.has_ipv6().then(|| free(candidates6(host.slot), &taken)).transpose()?;
    let Some(range) = asked else {
        return Ok(Record { range6, ..Record::new(free(candidates(host.slot), &taken)?) });
    };
    match meets(range, &taken) {
        None => Ok(Record { range6, ..Record::new(range) }),
        Some(what) => Err(Fault::usage(format!("--node-cidr {range}: {what} is in it; choose another")).into()),
    }
}

/// The same with addresses of IPv6, where the cluster has got that family since.
pub fn with_families(host: &Host, record: Record) -> Result<Record> {
    if record.range6.is_some() || !host.cluster.has_ipv6() {
        return Ok(record);
    }
    Ok(Record { range6: Some(free(candidates6(host.slot), &taken(host)?)?), ..record })
}

fn free(mut candidates: impl Iterator<Item = Prefix>, taken: &[Taken]) -> Result<Prefix, Fault> {
    let none = "this host's networks leave no range for the link between nodes: say one with --node-cidr";
    candidates.find(|range| meets(*range, taken).is_none()).ok_or_else(|| Fault::failed(none))
}

/// Beside those of pods and Services, a /24 for each cluster of the host; then some of the other private ranges.
fn candidates(slot: u16) -> impl Iterator<Item = Prefix> {
    let third = slot.min(255) as u8;
    let tens = (202..=217).map(move |second| [10, second, third, 0]);
    let others = [[172, 31, third, 0], [192, 168, 128 | third, 0]];
    tens.chain(others).map(|octets| Prefix::new(octets, 24))
}

/// Unique local ones.
fn candidates6(slot: u16) -> impl Iterator<Item = Prefix> {
    (0..16).map(move |nth| Prefix::new([0xfd66, 0x6b, slot, nth, 0, 0, 0, 0], 64))
}

fn meets(range: Prefix, taken: &[Taken]) -> Option<&str> {
    taken.iter().find(|taken| taken.range.overlaps(&range)).map(|taken| taken.what.as_str())
}

fn taken(host: &Host) -> Result<Vec<Taken>> {
    let mut rtnl = Rtnl::open()?;
    let own = rtnl.link(&bridge(host))?.map(|link| link.index);
    let mut taken = Vec::new();
    for cluster in known().iter().filter(|other| other.cluster.name != host.cluster.name).chain([host]) {
        let name = &cluster.cluster.name;
        let pods = cluster.cluster.pod_cidr.iter().map(|range| (range, "pods"));
        for (range, whose) in pods.chain(cluster.cluster.service_cidr.iter().map(|range| (range, "Services"))) {
            taken.push(Taken { range, what: format!("{range}, the {whose} of the cluster {name:?},") });
        }
    }
    let links = rtnl.links()?;
    for route in vacant::routes(&mut rtnl)?.filter(|route| route.index().is_none() || route.index() != own) {
        let link = links.iter().find(|link| Some(link.index) == route.index()).map_or("?", |link| link.name.as_str());
        taken.push(Taken { range: route.dst, what: format!("this host's route to {} by {link}", route.dst) });
    }
    Ok(taken)
}

/// Makes the bridge, or takes the one that is there and makes it so, and the table.
pub fn ensure(host: &Host, record: &Record) -> Result<()> {
    let (name, mut rtnl) = (bridge(host), Rtnl::open()?);
    let mtu = mtu(&mut rtnl)?;
    match rtnl.add_bridge(&name, mac_of(record.gateway()), mtu) {
        Err(e) if !e.is_exists() => return Err(e.into()),
        _ => {}
    }
    let link = rtnl.link(&name)?.with_context(|| format!("the link {name} went away while being made"))?;
    if link.kind != Some(LinkKind::Bridge) {
        return Err(Fault::failed(format!("there is a link {name} that is no bridge: it is in the way of ours")).into());
    }
    let mut addresses = vec![Prefix::new(record.gateway(), record.range.len)];
    addresses.extend(record.gateway6());
    let there = rtnl.addresses(Some(link.index))?;
    let is_other = |p: &Prefix| addresses.iter().any(|own| own.is_ipv6() == p.is_ipv6()) && !addresses.contains(p);
    for other in there.into_iter().filter(|a| a.global && is_other(&a.prefix)) {
        rtnl.delete_address(link.index, other.prefix)?;
    }
    if record.range6.is_some() {
        own_ways(&name)?;
    }
    addresses.iter().try_for_each(|address| rtnl.put_address(link.index, *address))?;
    rtnl.set_up(link.index, true)?;
    record.ranges().iter().try_for_each(|range| masquerade(host, range, &name))
}

/// IPv6 is spoken on a link, and no neighbour on it says which ways packets go.
fn own_ways(link: &str) -> Result<()> {
    for (name, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_redirects", "0")] {
        let setting = format!("net/ipv6/conf/{link}/{name}");
        linux::sysctl::set(&setting, value).with_context(|| format!("setting {setting} to {value}"))?;
    }
    Ok(())
}

/// Of the host's way out: what nodes send must fit there as it is.
fn mtu(rtnl: &mut Rtnl) -> Result<u32> {
    let Some(index) = rtnl.default_route()?.and_then(|route| route.index()) else { return Ok(MTU) };
    Ok(rtnl.link_by_index(index)?.map(|link| link.mtu).filter(|mtu| *mtu >= LEAST_MTU).unwrap_or(MTU))
}

/// What the nodes send to others than each other and pods goes out as the host's own.
fn masquerade(host: &Host, range: Prefix, bridge: &str) -> Result<()> {
    let v6 = range.is_ipv6();
    let mut batch = Batch::new(family(v6), table(host));
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    let hook = Hook { kind: "nat", number: hook::POSTROUTING, priority: priority::SRCNAT, policy: Policy::Accept };
    batch.add_chain(&Chain { name: POSTROUTING, hook: Some(hook) });
    let elsewhere = rule::interface_is(Meta::OifName, bridge, false);
    let not_pods = host.cluster.pod_cidr.family(v6).map(|pods| rule::destination_in(pods, false)).unwrap_or_default();
    let out = vec![Expr::Masquerade { flags: nat::RANDOM_FULLY }];
    let exprs = rule::all([rule::source_in(range, true), not_pods, elsewhere, out]);
    batch.add_rule(POSTROUTING, &exprs, Some("nodes of this host reach the outside"));
    Nft::open().and_then(|mut nft| nft.commit(batch)).context("letting nodes out")
}

fn family(v6: bool) -> Family {
    if v6 { Family::Ip6 } else { Family::Ip }
}

/// A network for a node, with its cable in: it has its addresses, and the ways out. `host_ips` are the addresses of the
/// host's own node.
pub fn plug(host: &Host, record: &Record, node: &Node, host_ips: &[IpAddr]) -> Result<NetNs> {
    let mut rtnl = Rtnl::open()?;
    let master = rtnl.link(&bridge(host))?.context("the link between nodes went away")?;
    let (near, address, inside) = (cable(host, node), record.address(node), NetNs::create().context("a network")?);
    // Of a life whose network goes away a moment later.
    rtnl.delete_link(&near)?;
    let veth = NewVeth {
        name: &near,
        mac: None,
        master: Some(master.index),
        mtu: master.mtu,
        peer_name: ETH,
        peer_mac: Some(mac_of(address)),
        peer_ns: Some(inside.as_fd()),
    };
    rtnl.add_veth(&veth)?;
    settle(host, record, node, host_ips, &inside)?;
    Ok(inside)
}

/// Gives a node's end of its cable what it has by the record: in a node that runs, too, where the record has more by now.
pub fn settle(host: &Host, record: &Record, node: &Node, host_ips: &[IpAddr], inside: &NetNs) -> Result<()> {
    let address = record.address(node);
    let mut far = Rtnl::open_in(inside)?;
    let lo = far.link("lo")?.context("a network without lo")?.index;
    far.set_up(lo, true)?;
    let eth = far.link(ETH)?.context("the cable went away")?.index;
    far.put_address(eth, Prefix::new(address, record.range.len))?;
    if let Some(address6) = record.address6(node) {
        inside.run(|| own_ways(ETH)).context("entering the node's network")??;
        far.put_address(eth, address6)?;
    }
    far.set_up(eth, true)?;
    let gateway = IpAddr::V4(record.gateway());
    far.put_route(&Route::via(Prefix::everything(false), gateway, eth))?;
    if let Some(gateway6) = record.gateway6() {
        far.put_route(&Route::via(Prefix::everything(true), gateway6.addr, eth))?;
    }
    for host_ip in host_ips.iter().filter(|ip| !record.ranges().contains(**ip)) {
        // The host answers for all of its addresses on each link: by its own it is a neighbour, and may be a next hop.
        far.put_route(&Route::link(Prefix::host(*host_ip), eth))?;
        if host_ip.is_ipv6() {
            // In IPv6 it answers for those of the link alone.
            far.put_neighbour(&Neighbour::permanent(eth, *host_ip, mac_of(record.gateway())))?;
        }
    }
    if let Some(api) = host.api_address_of_pods() {
        // It is among the Services', which lead nowhere else.
        let gateway = record.gateway6().filter(|_| api.is_ipv6()).map_or(gateway, |gateway| gateway.addr);
        far.put_route(&Route::via(Prefix::host(api), gateway, eth))?;
    }
    Ok(())
}

/// Takes a node's cable out; idempotent.
pub fn unplug(host: &Host, node: &Node) -> Result<()> {
    Ok(Rtnl::open()?.delete_link(&cable(host, node))?)
}

/// Removes the bridge, every cable and the table; idempotent.
pub fn remove(host: &Host) -> Result<()> {
    let mut rtnl = Rtnl::open()?;
    let (bridge, cables) = (bridge(host), format!("{}-node", host.bridge()));
    let is_cable =
        |name: &str| name.strip_prefix(&cables).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    for link in rtnl.links()?.into_iter().filter(|link| is_cable(&link.name)) {
        rtnl.delete_link(&link.name)?;
    }
    rtnl.delete_link(&bridge)?;
    let (table, mut nft) = (table(host), Nft::open()?);
    for family in [family(false), family(true)] {
        if nft.has_table(family, &table)? {
            nft.remove_table(family, &table)?;
        }
    }
    Ok(())
}

/// A hardware address that follows from the address, so that it stays.
fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    // Locally administered; pods' begin otherwise.
    Mac([0x0e, 0x6e, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_something_else_means_is_told_with_what_it_is() {
        let taken = |texts: &[&str]| -> Vec<Taken> {
            texts.iter().map(|t| Taken { range: t.parse().expect("a range"), what: (*t).to_owned() }).collect()
        };
        let range: Prefix = "10.202.0.0/24".parse().expect("a range");
        assert_eq!(meets(range, &taken(&["10.42.0.0/16", "192.168.1.0/24", "10.203.0.0/24"])), None);
        assert_eq!(meets(range, &taken(&["10.42.0.0/16", "10.202.0.128/25"])), Some("10.202.0.128/25"));
        assert_eq!(meets(range, &taken(&["10.0.0.0/8"])), Some("10.0.0.0/8"), "a VPN");
        let free = |texts: &[&str]| candidates(3).find(|range| meets(*range, &taken(texts)).is_none());
        assert_eq!(free(&["10.202.0.0/16"]).map(|r| r.to_string()).as_deref(), Some("10.203.3.0/24"));
        assert_eq!(free(&["10.0.0.0/8"]).map(|r| r.to_string()).as_deref(), Some("172.31.3.0/24"));
        assert_eq!(free(&["0.0.0.0/1", "128.0.0.0/1"]), None);
    }

    #[test]
    fn a_node_has_a_network_of_its_own_and_nothing_stays() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let mut host = crate::config::tests::host("/nowhere".as_ref());
        host.options.bind_address = Some(Ipv4Addr::LOCALHOST.into());
        host.cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        let host_ips = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address"));
        let range6 = Some("fd66:6b::/64".parse().expect("a range"));
        let mut record = Record { range6, ..Record::new("10.202.7.0/24".parse().expect("a range")) };
        record.add("h", None, &[], &[]).expect("added");
        let outside = NetNs::create().expect("a namespace");
        let routes = outside.run(|| -> Result<Vec<Route>> {
            for _ in 0..2 {
                ensure(&host, &record)?;
                ensure(&host, &Record { range: "10.202.8.0/24".parse()?, ..record.clone() })?;
                ensure(&host, &record)?;
                plug(&host, &record, &record.nodes[0], &host_ips)?;
            }
            // One that ran when the cluster got its second family.
            let before = Record { range6: None, ..record.clone() };
            let old = plug(&host, &before, &record.nodes[0], &host_ips[..1])?;
            let family = |ns: &NetNs| Ok::<_, anyhow::Error>(Rtnl::open_in(ns)?.addresses(None)?);
            anyhow::ensure!(!family(&old)?.iter().any(|a| a.prefix.is_ipv6() && a.global));
            let grown = with_families(&host, before)?;
            anyhow::ensure!(grown.range6.is_some() && with_families(&host, grown.clone())? == grown, "chosen once");
            settle(&host, &grown, &record.nodes[0], &host_ips, &old)?;
            let address = grown.address6(&record.nodes[0]);
            anyhow::ensure!(family(&old)?.iter().any(|a| Some(a.prefix) == address), "{:?}", family(&old)?);
            let inside = plug(&host, &record, &record.nodes[0], &host_ips)?;
            let routes = Rtnl::open_in(&inside)?.routes()?;
            let empty = Record { nodes: Vec::new(), ..record.clone() };
            anyhow::ensure!(choose(&host, Some(record.range))? == empty, "one's own are free");
            remove(&host)?;
            remove(&host)?;
            let left = Rtnl::open()?.links()?.into_iter().filter(|link| link.name.starts_with(&host.bridge())).count();
            anyhow::ensure!(left == 0 && Nft::open()?.tables()?.is_empty());
            Ok(routes)
        });
        let routes = routes.expect("there").expect("done");
        let mut to: Vec<_> = routes.iter().filter(|r| r.is_ours()).map(|r| r.dst.to_string()).collect();
        to.sort();
        assert_eq!(to, ["0.0.0.0/0", "10.43.255.255/32", "192.0.2.1/32", "2001:db8::1/128", "::/0"]);
    }
}
