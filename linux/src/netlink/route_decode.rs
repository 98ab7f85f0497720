//! Taking rtnetlink answers apart. Pure; `route` calls these with message bodies.

use std::net::IpAddr;

use super::Prefix;
use super::message::{attr, attrs, split, text, u16_at, u32_at};
use super::route::{self, Link, LinkAddress, Mac, Neighbour, Route};

/// A link: the whole body.
pub fn link(body: &[u8]) -> Option<Link> {
    let (fixed, rest) = split(body, 16)?;
    let bits = u32_at(fixed, 8)?;
    let mut link = Link {
        index: u32_at(fixed, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: bits & libc::IFF_UP as u32 != 0,
        carrier: bits & libc::IFF_RUNNING as u32 != 0,
        kind: None,
        master: None,
        peer: None,
        loopback: bits & libc::IFF_LOOPBACK as u32 != 0,
        promiscuous: bits & libc::IFF_PROMISC as u32 != 0,
        hairpin: false,
    };
    for (kind, value) in attrs(rest) {
        match kind {
            route::IFLA_IFNAME => link.name = text(value),
            route::IFLA_ADDRESS => link.mac = mac(value),
            route::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            route::IFLA_MASTER => link.master = u32_at(value, 0),
            route::IFLA_LINK => link.peer = u32_at(value, 0),
            route::IFLA_PROMISCUITY => link.promiscuous |= u32_at(value, 0)? != 0,
            route::IFLA_LINKINFO => {
                link.kind = attr(value, route::IFLA_INFO_KIND).map(text);
                let port = attr(value, route::IFLA_INFO_SLAVE_DATA);
                link.hairpin =
                    port.and_then(|p| attr(p, route::IFLA_BRPORT_MODE)).is_some_and(|v| v.first() == Some(&1));
            }
            _ => {}
        }
    }
    Some(link)
}

/// An address; `fixed` is eight bytes, as of `ifaddrmsg`.
pub fn address(fixed: &[u8], rest: &[u8]) -> Option<LinkAddress> {
    // The local address; on links without a peer both attributes say the same, and IPv6 has only the second.
    let value = attr(rest, route::IFA_LOCAL).or_else(|| attr(rest, route::IFA_ADDRESS))?;
    // The header has room for eight flags only.
    let flags = attr(rest, route::IFA_FLAGS).and_then(|v| u32_at(v, 0)).or(fixed.get(2).map(|f| u32::from(*f)))?;
    Some(LinkAddress {
        index: u32_at(fixed, 4)?,
        prefix: Prefix { addr: ip(value)?, len: *fixed.get(1)? },
        global: *fixed.get(3)? == route::SCOPE_UNIVERSE,
        secondary: flags & route::IFA_F_SECONDARY != 0,
        settled: flags & route::IFA_F_UNSETTLED == 0,
    })
}

/// A route; `fixed` is twelve bytes, as of `rtmsg`.
pub fn route(fixed: &[u8], rest: &[u8]) -> Option<Route> {
    const RTN_UNICAST: u8 = 1;
    if fixed[7] != RTN_UNICAST {
        return None; // the kernel's own: local, broadcast, multicast, unreachable
    }
    let unspecified: IpAddr = match i32::from(fixed[0]) {
        libc::AF_INET => IpAddr::V4(0.into()),
        libc::AF_INET6 => IpAddr::V6(0.into()),
        _ => return None,
    };
    let mut route = Route {
        dst: Prefix { addr: unspecified, len: fixed[1] },
        gateway: None,
        index: None,
        source: None,
        metric: None,
        table: u32::from(fixed[4]),
        protocol: fixed[5],
        onlink: u32_at(fixed, 8)? & route::RTNH_F_ONLINK != 0,
    };
    for (kind, value) in attrs(rest) {
        match kind {
            route::RTA_DST => route.dst.addr = ip(value)?,
            route::RTA_GATEWAY => route.gateway = ip(value),
            route::RTA_OIF => route.index = u32_at(value, 0),
            route::RTA_PREFSRC => route.source = ip(value),
            route::RTA_PRIORITY => route.metric = u32_at(value, 0),
            route::RTA_TABLE => route.table = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}

/// A neighbour; `fixed` is twelve bytes, as of `ndmsg`.
pub fn neighbour(fixed: &[u8], rest: &[u8]) -> Option<Neighbour> {
    const NUD_PERMANENT: u16 = 0x80;
    Some(Neighbour {
        index: u32_at(fixed, 4)?,
        addr: ip(attr(rest, route::NDA_DST)?)?,
        mac: attr(rest, route::NDA_LLADDR).and_then(mac),
        permanent: u16_at(fixed, 8)? & NUD_PERMANENT != 0,
    })
}

fn mac(value: &[u8]) -> Option<Mac> {
    Some(Mac(value.try_into().ok()?))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}
