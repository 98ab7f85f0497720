//! The address by which pods and others reach this host, from what the kernel has of links, addresses and routes. The
//! daemon of a cluster and a kubelet alone ask, at their start and whenever something changes that [`matters`]. The choice
//! is pure; [`look`] does I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{Error, Event, Item, Link, LinkAddress, Rtnl, Topic};
use meta::Prefix;

/// Addresses of the internet that no network has for itself: what leads there is the way out. Nothing is sent.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 88, 99, 1)), IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1))];

/// What a monitor must hear of for whoever asks here.
pub const TOPICS: [Topic; 3] = [Topic::Links, Topic::Addresses, Topic::Routes];
/// A route to more of the world than this many leading bits leave is one to the outside. VPNs write the default in halves.
const WIDE: u8 = 3;

/// What the choice is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// Every interface.
    pub links: Vec<Link>,
    /// Every address of every interface.
    pub addresses: Vec<LinkAddress>,
    /// The source addresses of packets to the outside, IPv4's before IPv6's.
    pub outward: Vec<IpAddr>,
}

/// Which addresses will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this family alone, the one that is asked for: IPv6 or not. Temporary addresses of IPv6 are none then: who is
    /// known by an address keeps it.
    pub family: Option<bool>,
    /// Ranges of the cluster's own, of which the host has addresses too.
    pub own_ranges: Vec<Prefix>,
    /// Names of links like this one and a number after it are ours.
    pub own_links: Option<&'static str>,
}

/// The best address, if there is any: what packets to the outside leave from; else what it was before, as long as the
/// host has it; else an address of any link that is up. IPv4 goes before IPv6, hardware before what is virtual. Addresses
/// for one link only are none: an endpoint may not have them.
pub fn choose(scene: &Scene, wanted: &Wanted, before: Option<IpAddr>) -> Option<IpAddr> {
    let usable: Vec<(&LinkAddress, &Link)> = scene.addresses.iter().filter_map(|a| usable(scene, wanted, a)).collect();
    let has = |ip: &IpAddr| usable.iter().any(|(a, _)| a.prefix.addr == *ip);
    let outward = scene.outward.iter().copied().find(|ip| has(ip));
    let any = || {
        let beside = usable.iter().filter(|(_, link)| !link.loopback);
        beside.min_by_key(|(a, link)| rank(a, link)).map(|(a, _)| a.prefix.addr)
    };
    outward.or(before.filter(has)).or_else(any)
}

fn usable<'a>(scene: &'a Scene, wanted: &Wanted, address: &'a LinkAddress) -> Option<(&'a LinkAddress, &'a Link)> {
    let ip = address.prefix.addr;
    let link = scene.links.iter().find(|l| l.index == address.index)?;
    let numbered = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    let our_link = wanted.own_links.is_some_and(|start| link.name.strip_prefix(start).is_some_and(numbered));
    let for_one_link = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let good = link.up
        && !our_link
        && address.global
        && address.settled
        && !for_one_link
        && !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
        && wanted.family.is_none_or(|v6| v6 == ip.is_ipv6() && !(v6 && address.secondary))
        && !wanted.own_ranges.iter().any(|range| range.contains(ip));
    good.then_some((address, link))
}

/// The least is the best. Two of one rank differ by the age of their links.
fn rank(address: &LinkAddress, link: &Link) -> impl Ord + use<> {
    let local = matches!(address.prefix.addr, IpAddr::V6(v6) if v6.is_unique_local());
    let ip = address.prefix.addr;
    (ip.is_ipv6(), address.secondary, local, link.kind.is_some(), !link.carrier, link.index)
}

/// Whether another choice may follow from an event. Pods come and go with ports of a bridge and routes of their own: most
/// of that is no news here, and the rest costs a look.
pub fn matters(event: &Event) -> bool {
    let (Event::Set(item) | Event::Gone(item)) = event else { return true };
    match item {
        Item::Link(link) => link.master.is_none() && !link.loopback,
        Item::Address(address) => address.global,
        Item::Route(route) => route.dst.len <= WIDE,
        _ => false,
    }
}

/// What the kernel of the calling thread's network namespace has.
pub fn look() -> Result<Scene, Error> {
    let mut rtnl = Rtnl::open()?;
    let mut outward = Vec::new();
    for to in OUTSIDE {
        // A kernel without IPv6 has no route of it.
        outward.extend(rtnl.route_to(to).ok().flatten().and_then(|route| route.source));
    }
    Ok(Scene { links: rtnl.links()?, addresses: rtnl.addresses(None)?, outward })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::LinkKind;

    fn link(index: u32, name: &str, kind: Option<LinkKind>) -> Link {
        Link {
            index,
            name: name.into(),
            mtu: 1500,
            up: true,
            carrier: true,
            kind,
            loopback: name == "lo",
            ..Link::default()
        }
    }

    fn address(index: u32, text: &str) -> LinkAddress {
        let prefix: Prefix = text.parse().unwrap();
        let global = !text.starts_with("127.") && !text.starts_with("fe80") && !text.starts_with("::1/");
        LinkAddress { index, prefix, global, secondary: false, settled: true, with_route: true, protocol: 0 }
    }

    /// A host with lo, eth0, docker0, fk0 and wlan0, with these addresses.
    fn scene(addresses: &[(u32, &str)], outward: &[&str]) -> Scene {
        let links = vec![
            link(1, "lo", None),
            link(2, "eth0", None),
            link(3, "docker0", Some(LinkKind::Bridge)),
            link(4, "fk0", Some(LinkKind::Bridge)),
            link(5, "wlan0", None),
        ];
        let own = [(1, "127.0.0.1/8"), (1, "::1/128"), (1, "10.43.0.10/32"), (4, "10.42.0.1/24"), (2, "fe80::1/64")];
        let addresses = own.iter().chain(addresses).map(|(index, text)| address(*index, text)).collect();
        Scene { links, addresses, outward: outward.iter().map(|ip| ip.parse().unwrap()).collect() }
    }

    fn cluster() -> Wanted {
        let own_ranges = vec!["10.42.0.0/16".parse().unwrap(), "10.43.0.0/16".parse().unwrap()];
        Wanted { family: Some(false), own_ranges, own_links: Some("fk") }
    }

    fn chosen(scene: &Scene, wanted: &Wanted, before: Option<&str>) -> String {
        let before = before.map(|ip| ip.parse().unwrap());
        choose(scene, wanted, before).map_or("none".into(), |ip| ip.to_string())
    }

    /// Addresses, what leads outside, the choice of a cluster of IPv4, that of a kubelet alone.
    type Row<'a> = (&'a [(u32, &'a str)], &'a [&'a str], &'a str, &'a str);

    #[test]
    fn a_host_without_a_default_route_was_127_0_0_1() {
        let rows: &[Row<'_>] = &[
            (&[(2, "192.0.2.5/24")], &["192.0.2.5"], "192.0.2.5", "192.0.2.5"),
            (&[(2, "192.0.2.5/24"), (5, "198.51.100.7/24")], &["198.51.100.7"], "198.51.100.7", "198.51.100.7"),
            (&[(2, "192.0.2.5/24")], &[], "192.0.2.5", "192.0.2.5"),
            (&[(3, "172.17.0.1/16"), (5, "198.51.100.7/24")], &[], "198.51.100.7", "198.51.100.7"),
            (&[(3, "172.17.0.1/16")], &[], "172.17.0.1", "172.17.0.1"),
            (&[(2, "169.254.3.4/16")], &["169.254.3.4"], "none", "none"),
            (&[(2, "2001:db8::5/64")], &["2001:db8::5"], "none", "2001:db8::5"),
            (&[(2, "2001:db8::5/64"), (3, "172.17.0.1/16")], &["2001:db8::5"], "172.17.0.1", "2001:db8::5"),
            (&[(2, "fd00::5/64"), (5, "2001:db8::7/64")], &[], "none", "2001:db8::7"),
            (&[(1, "203.0.113.9/32")], &["203.0.113.9"], "203.0.113.9", "203.0.113.9"),
            (&[(1, "203.0.113.9/32")], &[], "none", "none"),
            (&[], &[], "none", "none"),
            (&[], &["10.42.0.1"], "none", "10.42.0.1"),
        ];
        let alone = Wanted { own_links: None, ..Wanted::default() };
        for (addresses, outward, of_cluster, of_kubelet) in rows {
            let scene = scene(addresses, outward);
            assert_eq!(chosen(&scene, &cluster(), None), *of_cluster, "{addresses:?} {outward:?}");
            let mut bare = scene.clone();
            bare.addresses.retain(|a| a.index != 4 || outward.contains(&"10.42.0.1"));
            assert_eq!(chosen(&bare, &alone, None), *of_kubelet, "{addresses:?} {outward:?}");
        }
    }

    #[test]
    fn a_host_of_both_families_has_an_address_of_each_that_stays() {
        let addresses = [(2, "192.0.2.5/24"), (2, "2001:db8::77/64"), (2, "2001:db8::5/64"), (5, "fd00::7/64")];
        let mut scene = scene(&addresses, &["192.0.2.5", "2001:db8::77"]);
        let v6 = Wanted { family: Some(true), ..cluster() };
        assert_eq!(chosen(&scene, &v6, None), "2001:db8::77");
        scene
            .addresses
            .iter_mut()
            .filter(|a| a.prefix.addr.to_string() == "2001:db8::77")
            .for_each(|a| a.secondary = true);
        assert_eq!(chosen(&scene, &v6, None), "2001:db8::5", "the other is a temporary one");
        assert_eq!(chosen(&scene, &cluster(), None), "192.0.2.5");
    }

    #[test]
    fn links_that_are_down_and_addresses_that_are_not_settled_are_none() {
        let mut scene = scene(&[(2, "192.0.2.5/24"), (5, "198.51.100.7/24")], &[]);
        scene.links[1].carrier = false;
        assert_eq!(chosen(&scene, &cluster(), None), "198.51.100.7");
        scene.links[4].up = false;
        assert_eq!(chosen(&scene, &cluster(), None), "192.0.2.5", "a cable that is not in is no matter to pods here");
        scene.addresses.iter_mut().for_each(|a| a.settled = false);
        assert_eq!(chosen(&scene, &cluster(), None), "none");
    }

    #[test]
    fn an_address_stays_as_long_as_nothing_better_leads_out() {
        let both = [(2, "192.0.2.5/24"), (5, "198.51.100.7/24")];
        assert_eq!(chosen(&scene(&both, &[]), &cluster(), Some("198.51.100.7")), "198.51.100.7");
        assert_eq!(chosen(&scene(&both, &["192.0.2.5"]), &cluster(), Some("198.51.100.7")), "192.0.2.5");
        assert_eq!(chosen(&scene(&both[..1], &[]), &cluster(), Some("198.51.100.7")), "192.0.2.5");
    }
}
