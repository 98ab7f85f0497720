//! On which link of the host an address is announced, and which networks the host is on. Pure: of what the kernel has
//! (`linux::host_address::Scene`).

use std::cmp::Reverse;
use std::net::IpAddr;

use facts::announcing::MOST_NETWORKS;
use linux::host_address::Scene;
use linux::netlink::{Link, LinkAddress, LinkKind, Mac};
use meta::Prefix;

/// Where an address is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the link.
    pub index: u32,
    pub mac: Mac,
}

/// A link with neighbours: what goes in there comes out on a network of others.
fn has_neighbours(link: &Link) -> bool {
    link.up && link.carrier && !link.loopback && link.mac.is_some() && !matches!(link.kind, Some(LinkKind::Vxlan(_)))
}

fn is_network(address: &LinkAddress, own: &[Prefix]) -> bool {
    let ip = address.prefix.addr;
    let for_one_link = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let alone = address.prefix.len >= address.prefix.width();
    address.global && address.settled && !for_one_link && !alone && !own.iter().any(|range| range.contains(ip))
}

/// The links with networks, one row for each address.
fn facing<'s>(scene: &'s Scene, own: &'s [Prefix]) -> impl Iterator<Item = (&'s Link, Prefix)> {
    let addresses = scene.addresses.iter().filter(|address| is_network(address, own));
    addresses.filter_map(|address| {
        let link = scene.links.iter().find(|link| link.index == address.index)?;
        has_neighbours(link).then_some((link, address.prefix))
    })
}

/// The networks that this host is on, each once, the same whatever the order of links is.
pub fn networks(scene: &Scene, own: &[Prefix]) -> Vec<Prefix> {
    let mut all: Vec<Prefix> = facing(scene, own).map(|(_, prefix)| prefix.network()).collect();
    all.sort_unstable();
    all.dedup();
    all.truncate(MOST_NETWORKS);
    all
}

/// The link on whose network the address is, by the longest prefix as a route would be chosen: one alone, for two links of
/// one host on one network would tell two hardware addresses. Where it is on no network, a router has been told the way by
/// this host, and asks on the link that leads outside.
pub fn place(address: IpAddr, scene: &Scene, own: &[Prefix]) -> Option<Place> {
    let on_network = facing(scene, own).filter(|(_, prefix)| prefix.contains(address));
    let best = on_network.max_by_key(|(link, prefix)| (prefix.len, Reverse(link.index))).map(|(link, _)| link);
    let outward = || {
        let source = scene.outward.iter().find(|ip| ip.is_ipv6() == address.is_ipv6())?;
        let index = scene.addresses.iter().find(|a| a.prefix.addr == *source).map(|a| a.index)?;
        let own_link = own.iter().any(|range| range.contains(*source));
        scene.links.iter().find(|link| link.index == index && has_neighbours(link) && !own_link)
    };
    let link = best.or_else(outward)?;
    Some(Place { index: link.index, mac: link.mac? })
}

/// Whether a hardware address is one of this host's links.
pub fn is_own(mac: Mac, scene: &Scene) -> bool {
    scene.links.iter().any(|link| link.mac == Some(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<LinkKind>) -> Link {
        Link {
            index,
            name: name.into(),
            mac: Some(Mac([2, 0, 0, 0, 0, index as u8])),
            mtu: 1500,
            up: true,
            carrier: true,
            kind,
            loopback: name == "lo",
            ..Link::default()
        }
    }

    fn scene(addresses: &[(u32, &str)], outward: &[&str]) -> Scene {
        let vxlan = Some(LinkKind::Vxlan(Default::default()));
        let links = vec![
            link(1, "lo", None),
            link(2, "eth0", None),
            link(3, "eth1", None),
            link(4, "fk0", Some(LinkKind::Bridge)),
            link(5, "flannel.1", vxlan),
        ];
        let address = |(index, text): &(u32, &str)| {
            let prefix: Prefix = text.parse().unwrap();
            let global = !text.starts_with("127.") && !text.starts_with("fe80");
            LinkAddress {
                index: *index,
                prefix,
                global,
                secondary: false,
                settled: true,
                with_route: true,
                protocol: 0,
            }
        };
        let own =
            [(1, "127.0.0.1/8"), (1, "10.43.0.10/32"), (2, "fe80::1/64"), (4, "10.42.0.1/24"), (5, "10.42.0.0/32")];
        let addresses = own.iter().chain(addresses).map(address).collect();
        Scene { links, addresses, outward: outward.iter().map(|ip| ip.parse().unwrap()).collect() }
    }

    fn own() -> Vec<Prefix> {
        ["10.42.0.0/16", "10.43.0.0/16"].map(|range| range.parse().unwrap()).into()
    }

    fn placed(scene: &Scene, address: &str) -> Option<u32> {
        place(address.parse().unwrap(), scene, &own()).map(|place| place.index)
    }

    #[test]
    fn an_address_is_announced_where_its_neighbours_are() {
        let all = [(2, "192.0.2.5/24"), (3, "10.0.0.5/8"), (3, "2001:db8::5/64"), (2, "192.0.2.6/24")];
        let mut scene = scene(&all, &["10.0.0.5", "2001:db8::5"]);
        let told: Vec<String> = networks(&scene, &own()).iter().map(Prefix::to_string).collect();
        assert_eq!(told, ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/64"]);
        assert_eq!((placed(&scene, "192.0.2.240"), placed(&scene, "10.9.9.9")), (Some(2), Some(3)));
        assert_eq!(placed(&scene, "2001:db8::f0"), Some(3));
        assert_eq!(placed(&scene, "198.51.100.7"), Some(3), "nobody's network: where a router asks");
        // Two links on one network: the first answers; the longer prefix goes before.
        scene.addresses.push(LinkAddress { index: 3, ..scene.addresses[5] });
        assert_eq!(placed(&scene, "192.0.2.240"), Some(2));
        scene.addresses.last_mut().unwrap().prefix.len = 25;
        assert_eq!(placed(&scene, "192.0.2.120"), Some(3));
        scene.links[1].carrier = false;
        assert_eq!(placed(&scene, "192.0.2.240"), Some(3), "not where no cable is in");
        assert!(is_own(Mac([2, 0, 0, 0, 0, 3]), &scene) && !is_own(Mac([2, 0, 0, 0, 0, 9]), &scene));
    }

    #[test]
    fn a_host_without_neighbours_announces_nothing() {
        let alone = scene(&[], &["10.42.0.1"]);
        assert_eq!((networks(&alone, &own()), placed(&alone, "192.0.2.240")), (vec![], None));
        assert_eq!(placed(&alone, "10.42.0.240"), None, "pods are no neighbours");
        let many: Vec<String> = (0..100).map(|n| format!("10.100.{n}.1/24")).collect();
        let many: Vec<(u32, &str)> = many.iter().map(|text| (2, text.as_str())).collect();
        assert_eq!(networks(&scene(&many, &[]), &own()).len(), MOST_NETWORKS);
    }
}
