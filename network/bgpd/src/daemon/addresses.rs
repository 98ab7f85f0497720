//! This host's addresses towards a neighbour, which he is told as next hops, and its links. I/O: asks the kernel. Called when
//! a session begins, and has come up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use bgp::session::Time;
use linux::netlink::{Link, LinkAddress, Rtnl};

use crate::kernel::vrf;

/// For so long an answer of the kernel's is good: when a thousand sessions come up at once, it is asked once.
const GOOD: Time = Time::from_secs(1);

/// What the kernel said last.
#[derive(Debug, Default)]
pub struct Addresses {
    /// Of this VRF, or of what is in none.
    vrf: Option<String>,
    asked: Option<Time>,
    all: Vec<LinkAddress>,
    /// Links by their names, and the VRF of each.
    links: HashMap<String, Option<String>>,
}

impl Addresses {
    /// Of a VRF, or of what is in none.
    pub fn new(vrf: Option<String>) -> Addresses {
        Addresses { vrf, ..Addresses::default() }
    }

    /// By the address from which we speak: that one, and of the other family the first of the same link.
    pub fn of(&mut self, local: IpAddr, now: Time) -> Own {
        Own::among(local, self.all(now))
    }

    /// Whether an address is ours, on this link.
    pub fn has(&mut self, address: IpAddr, link: u32, now: Time) -> bool {
        self.all(now).iter().any(|known| known.index == link && known.prefix.addr == address)
    }

    /// Why nobody is spoken with by a link, nor by a VRF: it is not where this speaker is. Nothing of one that is not there.
    pub fn elsewhere(&mut self, link: &str, now: Time) -> Option<String> {
        self.all(now);
        misplaced(link, self.links.get(link)?.as_deref(), self.vrf.as_deref())
    }

    fn all(&mut self, now: Time) -> &[LinkAddress] {
        if self.asked.is_none_or(|asked| now.saturating_sub(asked) > GOOD) {
            self.asked = Some(now);
            match ask(self.vrf.as_deref()) {
                Ok(known) => (self.all, self.links) = known,
                Err(error) => {
                    tracing::warn!(%error, "addresses of links are not known: next hops are of the session's family")
                }
            }
        }
        &self.all
    }
}

/// What is wrong with a link that is in this VRF, for a speaker of that one.
fn misplaced(link: &str, within: Option<&str>, vrf: Option<&str>) -> Option<String> {
    match (within, vrf) {
        (within, vrf) if within == vrf => None,
        (Some(other), None) => Some(format!(
            "{link} is in the VRF {other}, and this speaker is in none: a speaker with `vrf: {other}` is for it"
        )),
        (_, vrf) => {
            let vrf = vrf.unwrap_or_default();
            Some(format!("{link} is not in the VRF {vrf} (vrf); `ip link set {link} master {vrf}` puts it there"))
        }
    }
}

type Known = (Vec<LinkAddress>, HashMap<String, Option<String>>);

/// Addresses of a VRF, or of what is in none; all links.
fn ask(vrf: Option<&str>) -> Result<Known, linux::netlink::Error> {
    let mut rtnl = Rtnl::open()?;
    let links: HashMap<u32, Link> = rtnl.links()?.into_iter().map(|link| (link.index, link)).collect();
    let vrf_of = |link: &Link| vrf::of(link, link.master.and_then(|master| links.get(&master))).map(str::to_owned);
    let named: HashMap<String, Option<String>> = links.values().map(|link| (link.name.clone(), vrf_of(link))).collect();
    let mut all = rtnl.addresses(None)?;
    let within = |link: &Link| named.get(&link.name).is_some_and(|within| within.as_deref() == vrf);
    all.retain(|address| links.get(&address.index).is_some_and(within));
    Ok((all, named))
}

/// Addresses of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Of IPv4.
    pub v4: Option<IpAddr>,
    /// Of IPv6, not of the link alone.
    pub v6: Option<IpAddr>,
    /// Of the link alone.
    pub link_local: Option<Ipv6Addr>,
}

impl Own {
    fn among(local: IpAddr, all: &[LinkAddress]) -> Own {
        let link = all.iter().find(|known| known.prefix.addr == local).map(|known| known.index);
        let beside = || all.iter().filter(|known| Some(known.index) == link && known.settled);
        let global = |v6: bool| {
            let fits = |known: &&LinkAddress| known.global && !known.secondary && known.prefix.is_ipv6() == v6;
            beside().find(fits).map(|known| known.prefix.addr)
        };
        let link_local = beside().find_map(|known| match known.prefix.addr {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
            _ => None,
        });
        match local {
            IpAddr::V4(_) => Own { v4: Some(local), v6: global(true), link_local },
            // Of an unnumbered peer there is nothing but the link's own.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                Own { v4: global(false), v6: global(true).or(Some(local)), link_local: Some(v6) }
            }
            IpAddr::V6(_) => Own { v4: global(false), v6: Some(local), link_local },
        }
    }
}

/// The name of a link, by its number.
pub(super) fn name_of(index: u32) -> Option<String> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::index_to_name(&socket, index).ok()
}

/// The number of a link.
pub(super) fn index_of(interface: &str) -> Option<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(&socket, interface).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(index: u32, text: &str) -> LinkAddress {
        let prefix: meta::Prefix = text.parse().expect("a prefix");
        let global = !matches!(prefix.addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
        LinkAddress { index, prefix, global, secondary: false, settled: true, with_route: true, protocol: 0 }
    }

    #[test]
    fn a_link_is_where_the_speaker_is_or_it_is_said_where() {
        assert_eq!(misplaced("eth0", None, None), None);
        assert_eq!(misplaced("eth0", Some("red"), Some("red")), None);
        let told = |within: Option<&str>, vrf: Option<&str>| misplaced("eth0", within, vrf).expect("elsewhere");
        assert!(told(Some("red"), None).starts_with("eth0 is in the VRF red, and this speaker is in none"));
        for within in [None, Some("blue")] {
            assert!(told(within, Some("red")).contains("`ip link set eth0 master red` puts it there"));
        }
    }

    #[test]
    fn the_other_family_is_of_the_same_link() {
        let all = [
            on(1, "10.9.0.1/24"),
            on(1, "fd09::1/64"),
            on(2, "10.0.0.1/24"),
            on(2, "fe80::1/64"),
            on(2, "fd00::1/64"),
            on(2, "fd00::2/64"),
        ];
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let own = Own::among(ip("10.0.0.1"), &all);
        let link_local = Some("fe80::1".parse().expect("an address"));
        assert_eq!(own, Own { v4: Some(ip("10.0.0.1")), v6: Some(ip("fd00::1")), link_local });
        assert_eq!(Own::among(ip("fd00::2"), &all).v4, Some(ip("10.0.0.1")));
        assert_eq!(Own::among(ip("fd00::2"), &all).v6, Some(ip("fd00::2")), "that from which we speak");
        let unnumbered = Own::among(ip("fe80::1"), &[on(2, "fe80::1/64")]);
        assert_eq!((unnumbered.v4, unnumbered.v6, unnumbered.link_local), (None, Some(ip("fe80::1")), link_local));
        assert_eq!(Own::among(ip("10.7.7.7"), &all), Own { v4: Some(ip("10.7.7.7")), ..Own::default() });
    }
}
