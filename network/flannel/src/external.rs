//! By which link and which addresses this host reaches the others, from what the flags say and what the kernel has. The
//! choice is pure; [`look`] does I/O. Caller: the daemon, at its start.
//!
//! Those of `--iface` are tried in order, then those of `--iface-regex`, then the way to `--iface-can-reach`; without any
//! the way of the default route. `--public-ip` is what others are told instead of the link's address; the outer packets
//! leave from the link's all the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux::netlink::{Link, LinkAddress, Rtnl};
use meta::Prefix;
use regex::Regex;

use crate::backend::External;

/// Addresses that no network has for itself: what leads there is the default route. Nothing is sent.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 88, 99, 1)), IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1))];

/// What the flags say.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// `--iface`: names or addresses.
    pub interfaces: Vec<String>,
    /// `--iface-regex`: of names or addresses.
    pub patterns: Vec<Regex>,
    /// `--iface-can-reach`
    pub can_reach: Option<IpAddr>,
    /// `--public-ip`, `--public-ipv6`
    pub public_v4: Option<Ipv4Addr>,
    pub public_v6: Option<Ipv6Addr>,
    /// This host's address of IPv6 where the link that is chosen has none: it may be on another.
    pub elsewhere_v6: Option<Ipv6Addr>,
}

/// What the kernel has.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    pub links: Vec<Link>,
    pub addresses: Vec<LinkAddress>,
    /// The links that packets leave by: to what must be reached, or to the outside.
    pub ways: Vec<u32>,
}

/// Which families the network has.
#[derive(Clone, Copy, Debug)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

/// The link and its addresses, or a sentence that says what is missing.
pub fn choose(scene: &Scene, wish: &Wish, families: Families) -> Result<External, String> {
    let said = !wish.interfaces.is_empty() || !wish.patterns.is_empty();
    let named = wish.interfaces.iter().find_map(|text| by_name(scene, text));
    let matching = || wish.patterns.iter().find_map(|pattern| by_pattern(scene, pattern));
    let (link, address) = match named.or_else(matching) {
        Some(found) => found,
        None if said => return Err(none_of(wish)),
        None => {
            let by_way = scene.ways.iter().find_map(|index| scene.links.iter().find(|link| link.index == *index));
            let nowhere = || match wish.can_reach {
                Some(address) => format!("--iface-can-reach: no route leads to {address}"),
                None => "this host has no default route: say by which link others are reached with --iface".to_owned(),
            };
            (by_way.ok_or_else(nowhere)?, None)
        }
    };
    let of_link = |v6: bool| {
        let all = scene.addresses.iter().filter(|a| a.index == link.index && a.prefix.is_ipv6() == v6);
        let usable = all.filter(|a| a.global && a.settled && !a.secondary).map(|a| a.prefix.addr);
        address.filter(|ip| ip.is_ipv6() == v6).or(usable.into_iter().next())
    };
    let v4 = of_link(false).and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
    let v6 = of_link(true).and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
    let v6 = v6.or(wish.elsewhere_v6);
    for (wanted, has, family) in [(families.v4, v4.is_some(), "IPv4"), (families.v6, v6.is_some(), "IPv6")] {
        if wanted && !has {
            return Err(format!("the link {} has no {family} address: choose another with --iface", link.name));
        }
    }
    Ok(External {
        index: link.index,
        name: link.name.clone(),
        mtu: link.mtu,
        v4,
        v6,
        public_v4: wish.public_v4.or(v4),
        public_v6: wish.public_v6.or(v6),
    })
}

fn none_of(wish: &Wish) -> String {
    let names = wish.interfaces.iter().map(String::as_str).chain(wish.patterns.iter().map(Regex::as_str));
    let all: Vec<&str> = names.collect();
    let flag = if wish.patterns.is_empty() { "--iface" } else { "--iface-regex" };
    format!("{flag}: this host has no link or address {}", all.join(", "))
}

type Found<'a> = Option<(&'a Link, Option<IpAddr>)>;

fn by_name<'a>(scene: &'a Scene, text: &str) -> Found<'a> {
    match text.parse::<IpAddr>() {
        Ok(ip) => by_address(scene, |address| address == ip),
        Err(_) => scene.links.iter().find(|link| link.name == text).map(|link| (link, None)),
    }
}

fn by_pattern<'a>(scene: &'a Scene, pattern: &Regex) -> Found<'a> {
    let by_name = scene.links.iter().find(|link| pattern.is_match(&link.name)).map(|link| (link, None));
    by_name.or_else(|| by_address(scene, |address| pattern.is_match(&address.to_string())))
}

fn by_address(scene: &Scene, is_it: impl Fn(IpAddr) -> bool) -> Found<'_> {
    let address = scene.addresses.iter().find(|address| is_it(address.prefix.addr))?;
    let link = scene.links.iter().find(|link| link.index == address.index)?;
    Some((link, Some(address.prefix.addr)))
}

/// What the kernel of the calling thread's network namespace has.
pub fn look(wish: &Wish) -> Result<Scene, linux::netlink::Error> {
    let mut rtnl = Rtnl::open()?;
    let targets = wish.can_reach.map_or(OUTSIDE.to_vec(), |address| vec![address]);
    let mut ways = Vec::new();
    for target in targets {
        // A kernel without IPv6 has no route of it.
        ways.extend(rtnl.route_to(target).ok().flatten().and_then(|route| route.index()));
    }
    if ways.is_empty() && wish.can_reach.is_none() {
        let default = |route: &linux::netlink::Route| route.dst == Prefix::everything(route.dst.is_ipv6());
        ways.extend(rtnl.routes()?.iter().filter(|route| default(route)).filter_map(|route| route.index()));
    }
    Ok(Scene { links: rtnl.links()?, addresses: rtnl.addresses(None)?, ways })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        let link = |index: u32, name: &str| Link {
            index,
            name: name.into(),
            mtu: 1500,
            up: true,
            carrier: true,
            loopback: name == "lo",
            ..Link::default()
        };
        let address = |index: u32, text: &str| {
            let prefix: Prefix = text.parse().unwrap();
            let global = !text.starts_with("fe80") && !text.starts_with("127.");
            LinkAddress { index, prefix, global, secondary: false, settled: true, with_route: true, protocol: 0 }
        };
        Scene {
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "bare0")],
            addresses: vec![
                address(1, "127.0.0.1/8"),
                address(2, "fe80::1/64"),
                address(2, "192.0.2.5/24"),
                address(2, "192.0.2.6/32"),
                address(3, "198.51.100.7/24"),
                address(3, "2001:db8::7/64"),
            ],
            ways: vec![2],
        }
    }

    const V4: Families = Families { v4: true, v6: false };

    fn wish(interfaces: &[&str], patterns: &[&str]) -> Wish {
        Wish {
            interfaces: interfaces.iter().map(|text| (*text).to_owned()).collect(),
            patterns: patterns.iter().map(|text| Regex::new(text).unwrap()).collect(),
            ..Wish::default()
        }
    }

    #[test]
    fn what_is_named_goes_before_what_matches_and_that_before_the_default() {
        let rows = [
            (wish(&[], &[]), "eth0 192.0.2.5"),
            (wish(&["eth1"], &[]), "eth1 198.51.100.7"),
            (wish(&["nope", "eth1"], &[]), "eth1 198.51.100.7"),
            (wish(&["192.0.2.6"], &[]), "eth0 192.0.2.6"),
            (wish(&["nope"], &["^eth[1-9]$"]), "eth1 198.51.100.7"),
            (wish(&[], &[r"198\.51\..*"]), "eth1 198.51.100.7"),
        ];
        for (wish, expected) in rows {
            let found = choose(&scene(), &wish, V4).unwrap();
            assert_eq!(format!("{} {}", found.name, found.v4.unwrap()), expected, "{wish:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told_by_flag() {
        let said = |scene: &Scene, wish: &Wish, families| choose(scene, wish, families).unwrap_err();
        assert_eq!(
            said(&scene(), &wish(&["nope", "eth9"], &[]), V4),
            "--iface: this host has no link or address nope, eth9"
        );
        let lost = Scene { ways: vec![], ..scene() };
        assert!(said(&lost, &wish(&[], &[]), V4).starts_with("this host has no default route: say"));
        let far = Wish { can_reach: Some("203.0.113.1".parse().unwrap()), ..Wish::default() };
        assert_eq!(said(&lost, &far, V4), "--iface-can-reach: no route leads to 203.0.113.1");
        let bare = said(&scene(), &wish(&["bare0"], &[]), V4);
        assert_eq!(bare, "the link bare0 has no IPv4 address: choose another with --iface");
        let six = said(&scene(), &wish(&["eth0"], &[]), Families { v4: true, v6: true });
        assert!(six.starts_with("the link eth0 has no IPv6 address"), "a link-local address is none: {six}");
        let elsewhere = Wish { elsewhere_v6: "fd00::7".parse().ok(), ..wish(&["eth0"], &[]) };
        let both = choose(&scene(), &elsewhere, Families { v4: true, v6: true }).unwrap();
        assert_eq!((both.v6, both.public_v6), (elsewhere.elsewhere_v6, elsewhere.elsewhere_v6));
    }

    #[test]
    fn others_are_told_the_public_address_and_packets_leave_from_the_links() {
        let wish = Wish { public_v4: Some(Ipv4Addr::new(203, 0, 113, 9)), ..Wish::default() };
        let found = choose(&scene(), &wish, V4).unwrap();
        assert_eq!((found.v4, found.public_v4), (Some(Ipv4Addr::new(192, 0, 2, 5)), wish.public_v4));
    }
}
