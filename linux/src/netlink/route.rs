//! Links, addresses, routes and neighbours: rtnetlink. Does I/O through `Socket`.
//!
//! An `Rtnl` works on the network namespace of the thread that opened it, or on the one it was opened in, and
//! can be used from any thread. Things are named by interface index; [`Rtnl::link`] finds one by name.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::message::{Writer, split};
use super::prefix::octets;
use super::route_decode as decode;
use super::{Error, Prefix, Socket, socket::flags};
use crate::netns::NetNs;

pub(super) const NEWLINK: u16 = 16;
pub(super) const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
pub(super) const NEWADDR: u16 = 20;
pub(super) const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
pub(super) const NEWROUTE: u16 = 24;
pub(super) const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;

pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINK: u16 = 5;
pub(super) const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_PROMISCUITY: u16 = 30;
const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(super) const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
pub(super) const IFLA_BRPORT_MODE: u16 = 4;
pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
pub(super) const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_PREFSRC: u16 = 7;
pub(super) const RTA_TABLE: u16 = 15;
pub(super) const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const IFF_UP: u32 = libc::IFF_UP as u32;
pub(super) const IFA_F_SECONDARY: u32 = 0x01;
/// Addresses that failed duplicate detection, are on their way out, or may still turn out to be another's.
pub(super) const IFA_F_UNSETTLED: u32 = 0x08 | 0x20 | 0x40;
const IFF_PROMISC: u32 = libc::IFF_PROMISC as u32;
/// RTNH_F_ONLINK.
pub(super) const RTNH_F_ONLINK: u32 = 4;
/// RT_TABLE_MAIN.
pub const TABLE_MAIN: u32 = 254;
/// RTPROT_STATIC: set by an administrator, so nobody's daemon tidies it away.
const PROTOCOL_STATIC: u8 = 4;
pub(super) const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: bool,
    /// There is somebody at the other end.
    pub carrier: bool,
    /// "bridge", "veth", "vxlan", …; none for hardware and loopback.
    pub kind: Option<String>,
    /// The bridge that this is a port of.
    pub master: Option<u32>,
    /// The index of the other end or of the device below, maybe in another namespace.
    pub peer: Option<u32>,
    pub loopback: bool,
    pub promiscuous: bool,
    /// A bridge port that sends frames back out where they came in.
    pub hairpin: bool,
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    pub index: u32,
    pub prefix: Prefix,
    /// Not only for this link or this host.
    pub global: bool,
    /// One beside another: a second of its network, or a temporary one that hides who has it.
    pub secondary: bool,
    /// Nobody else has it, as far as the kernel knows, and it is not about to go.
    pub settled: bool,
}

/// A route. With neither gateway nor interface the kernel refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub dst: Prefix,
    pub gateway: Option<IpAddr>,
    pub index: Option<u32>,
    pub source: Option<IpAddr>,
    pub metric: Option<u32>,
    pub table: u32,
    /// Who made it: RTPROT_*; 4 is static.
    pub protocol: u8,
    /// The gateway is on the link though no address says so.
    pub onlink: bool,
}

impl Route {
    /// To `dst`, directly reachable on a link.
    pub fn link(dst: Prefix, index: u32) -> Self {
        Route {
            dst: dst.network(),
            gateway: None,
            index: Some(index),
            source: None,
            metric: None,
            table: TABLE_MAIN,
            protocol: PROTOCOL_STATIC,
            onlink: false,
        }
    }

    /// To `dst` by a gateway.
    pub fn via(dst: Prefix, gateway: IpAddr, index: u32) -> Self {
        Route { gateway: Some(gateway), ..Route::link(dst, index) }
    }
}

/// A neighbour entry: which hardware address an IP address has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub index: u32,
    pub addr: IpAddr,
    pub mac: Option<Mac>,
    pub permanent: bool,
}

/// A pair of virtual Ethernet interfaces to make. The near end is up; the far end can't be before it has a peer.
#[derive(Debug)]
pub struct NewVeth<'a> {
    pub name: &'a str,
    pub mac: Option<Mac>,
    /// The bridge that the near end joins.
    pub master: Option<u32>,
    pub mtu: u32,
    pub peer_name: &'a str,
    pub peer_mac: Option<Mac>,
    /// Where the far end goes; none leaves it here.
    pub peer_ns: Option<BorrowedFd<'a>>,
}

/// Speaks rtnetlink to one network namespace.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
}

impl Rtnl {
    /// For the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Rtnl { socket: Socket::route()? })
    }

    /// For another namespace.
    pub fn open_in(ns: &NetNs) -> Result<Self, Error> {
        ns.run(Rtnl::open).map_err(|source| Error::Io { what: "entering the network namespace".to_owned(), source })?
    }

    // Links.

    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.socket.dump(GETLINK, "listing links", |w| w.raw(&ifinfo(0, 0, 0)), |m| decode::link(m.body))
    }

    /// None when there is no such link.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let fill = |w: &mut Writer| {
            w.raw(&ifinfo(0, 0, 0));
            w.attr_str(IFLA_IFNAME, name);
        };
        match self.socket.get(GETLINK, &format!("looking for link {name}"), fill, |m| decode::link(m.body)) {
            Err(e) if e.is_missing() => Ok(None),
            answer => answer,
        }
    }

    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let what = format!("looking for link {index}");
        match self.socket.get(GETLINK, &what, |w| w.raw(&ifinfo(index, 0, 0)), |m| decode::link(m.body)) {
            Err(e) if e.is_missing() => Ok(None),
            answer => answer,
        }
    }

    /// Makes a bridge that is up.
    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<(), Error> {
        self.socket.request(NEWLINK, CREATE_NEW, &format!("adding bridge {name}"), |w| {
            w.raw(&ifinfo(0, IFF_UP, IFF_UP));
            w.attr_str(IFLA_IFNAME, name);
            w.attr(IFLA_ADDRESS, &mac.0);
            w.attr_u32(IFLA_MTU, mtu);
            let info = w.nest(IFLA_LINKINFO);
            w.attr_str(IFLA_INFO_KIND, "bridge");
            w.end_nest(info);
        })
    }

    pub fn add_veth(&mut self, veth: &NewVeth<'_>) -> Result<(), Error> {
        let what = format!("adding veth {} with peer {}", veth.name, veth.peer_name);
        self.socket.request(NEWLINK, CREATE_NEW, &what, |w| {
            w.raw(&ifinfo(0, IFF_UP, IFF_UP));
            w.attr_str(IFLA_IFNAME, veth.name);
            w.attr_u32(IFLA_MTU, veth.mtu);
            if let Some(mac) = veth.mac {
                w.attr(IFLA_ADDRESS, &mac.0);
            }
            if let Some(master) = veth.master {
                w.attr_u32(IFLA_MASTER, master);
            }
            let info = w.nest(IFLA_LINKINFO);
            w.attr_str(IFLA_INFO_KIND, "veth");
            let data = w.nest(IFLA_INFO_DATA);
            let peer = w.nest(VETH_INFO_PEER);
            w.raw(&ifinfo(0, 0, 0));
            w.attr_str(IFLA_IFNAME, veth.peer_name);
            w.attr_u32(IFLA_MTU, veth.mtu);
            if let Some(mac) = veth.peer_mac {
                w.attr(IFLA_ADDRESS, &mac.0);
            }
            if let Some(ns) = veth.peer_ns {
                w.attr_u32(IFLA_NET_NS_FD, ns.as_raw_fd() as u32);
            }
            w.end_nest(peer);
            w.end_nest(data);
            w.end_nest(info);
        })
    }

    /// Removes a link; its peer goes with it. Content when there is none.
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let answer = self.socket.request(DELLINK, 0, &format!("removing link {name}"), |w| {
            w.raw(&ifinfo(0, 0, 0));
            w.attr_str(IFLA_IFNAME, name);
        });
        content_when_missing(answer)
    }

    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        let word = if up { "up" } else { "down" };
        let value = if up { IFF_UP } else { 0 };
        self.set(index, &format!("setting link {index} {word}"), value, IFF_UP, |_| ())
    }

    pub fn set_promiscuous(&mut self, index: u32, on: bool) -> Result<(), Error> {
        let value = if on { IFF_PROMISC } else { 0 };
        self.set(index, &format!("making link {index} promiscuous"), value, IFF_PROMISC, |_| ())
    }

    /// Makes a link a port of a bridge; none takes it out of its bridge.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<(), Error> {
        let what = format!("putting link {index} into bridge {}", master.unwrap_or(0));
        self.set(index, &what, 0, 0, |w| w.attr_u32(IFLA_MASTER, master.unwrap_or(0)))
    }

    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        self.set(index, &format!("setting the MTU of link {index} to {mtu}"), 0, 0, |w| w.attr_u32(IFLA_MTU, mtu))
    }

    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), Error> {
        self.set(index, &format!("giving link {index} the address {mac}"), 0, 0, |w| w.attr(IFLA_ADDRESS, &mac.0))
    }

    /// A link must be down to be renamed.
    pub fn set_name(&mut self, index: u32, name: &str) -> Result<(), Error> {
        self.set(index, &format!("naming link {index} {name}"), 0, 0, |w| w.attr_str(IFLA_IFNAME, name))
    }

    pub fn move_to(&mut self, index: u32, ns: &NetNs) -> Result<(), Error> {
        let fd = ns.as_fd().as_raw_fd() as u32;
        self.set(index, &format!("moving link {index} to a namespace"), 0, 0, |w| w.attr_u32(IFLA_NET_NS_FD, fd))
    }

    /// Lets a bridge port send a frame back out where it came in.
    pub fn set_hairpin(&mut self, index: u32, on: bool) -> Result<(), Error> {
        self.set(index, &format!("setting hairpin mode of link {index}"), 0, 0, |w| {
            let info = w.nest(IFLA_LINKINFO);
            w.attr_str(IFLA_INFO_SLAVE_KIND, "bridge");
            let data = w.nest(IFLA_INFO_SLAVE_DATA);
            w.attr(IFLA_BRPORT_MODE, &[u8::from(on)]);
            w.end_nest(data);
            w.end_nest(info);
        })
    }

    fn set(
        &mut self,
        index: u32,
        what: &str,
        value: u32,
        change: u32,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<(), Error> {
        self.socket.request(NEWLINK, 0, what, |w| {
            w.raw(&ifinfo(index, value, change));
            fill(w);
        })
    }

    // Addresses.

    /// Of one link, or of all.
    pub fn addresses(&mut self, index: Option<u32>) -> Result<Vec<LinkAddress>, Error> {
        let all = self.socket.dump(
            GETADDR,
            "listing addresses",
            |w| w.raw(&[0; 8]),
            |m| split(m.body, 8).and_then(|(fixed, rest)| decode::address(fixed, rest)),
        )?;
        Ok(all.into_iter().filter(|a| index.is_none_or(|i| i == a.index)).collect())
    }

    /// Gives a link an address, and with it the route to its network. Content when it has it.
    pub fn add_address(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        self.put_address(index, address, 0)
    }

    /// The same without the route to the network: what is beside it is reached by routes of one's own.
    pub fn add_address_without_route(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        self.put_address(index, address, IFA_F_NOPREFIXROUTE)
    }

    fn put_address(&mut self, index: u32, address: Prefix, mut extra: u32) -> Result<(), Error> {
        if address.addr.is_ipv6() {
            extra |= IFA_F_NODAD; // addresses are handed out by us: nobody else can have them
        }
        let what = format!("adding address {address} to link {index}");
        self.socket.request(NEWADDR, flags::CREATE | flags::REPLACE, &what, |w| {
            w.raw(&ifaddr(index, address));
            w.attr(IFA_LOCAL, &octets(address.addr));
            w.attr(IFA_ADDRESS, &octets(address.addr));
            if address.addr.is_ipv4() && address.len < 31 {
                w.attr(IFA_BROADCAST, &octets(address.last()));
            }
            w.attr_u32(IFA_FLAGS, extra);
        })
    }

    /// Content when there is no such address.
    pub fn delete_address(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        let what = format!("removing address {address} from link {index}");
        content_when_missing(self.socket.request(DELADDR, 0, &what, |w| {
            w.raw(&ifaddr(index, address));
            w.attr(IFA_LOCAL, &octets(address.addr));
        }))
    }

    // Routes.

    /// Of all tables, both families.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        self.socket.dump(
            GETROUTE,
            "listing routes",
            |w| w.raw(&[0; 12]),
            |m| split(m.body, 12).and_then(|(fixed, rest)| decode::route(fixed, rest)),
        )
    }

    /// The route that a packet to `to` would take, with the source address that it would have. Nothing is sent.
    pub fn route_to(&mut self, to: IpAddr) -> Result<Option<Route>, Error> {
        let fill = |w: &mut Writer| {
            let mut body = [0u8; 12];
            body[0] = family(to);
            body[1] = Prefix::host(to).len;
            w.raw(&body);
            w.attr(RTA_DST, &octets(to));
        };
        let each = |m: &super::message::Message<'_>| split(m.body, 12).and_then(|(f, rest)| decode::route(f, rest));
        match self.socket.get(GETROUTE, &format!("asking for the route to {to}"), fill, each) {
            Err(e) if e.is_missing() || e.errno() == libc::ENETUNREACH || e.errno() == libc::EHOSTUNREACH => Ok(None),
            answer => answer,
        }
    }

    /// Adds a route, or changes the one to the same destination.
    pub fn put_route(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("adding route to {}", route.dst);
        self.socket.request(NEWROUTE, flags::CREATE | flags::REPLACE, &what, |w| write_route(w, route))
    }

    /// Content when there is no such route.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("removing route to {}", route.dst);
        content_when_missing(self.socket.request(DELROUTE, 0, &what, |w| write_route(w, route)))
    }

    // Neighbours.

    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        self.socket.dump(
            GETNEIGH,
            "listing neighbours",
            |w| w.raw(&[0; 12]),
            |m| split(m.body, 12).and_then(|(fixed, rest)| decode::neighbour(fixed, rest)),
        )
    }

    /// Sets for good which hardware address an IP address has.
    pub fn put_neighbour(&mut self, index: u32, addr: IpAddr, mac: Mac) -> Result<(), Error> {
        let what = format!("adding neighbour {addr} on link {index}");
        self.socket.request(NEWNEIGH, flags::CREATE | flags::REPLACE, &what, |w| {
            w.raw(&neighbour(index, addr, NUD_PERMANENT));
            w.attr(NDA_DST, &octets(addr));
            w.attr(NDA_LLADDR, &mac.0);
        })
    }

    /// Content when there is no such neighbour.
    pub fn delete_neighbour(&mut self, index: u32, addr: IpAddr) -> Result<(), Error> {
        let what = format!("removing neighbour {addr} from link {index}");
        content_when_missing(self.socket.request(DELNEIGH, 0, &what, |w| {
            w.raw(&neighbour(index, addr, 0));
            w.attr(NDA_DST, &octets(addr));
        }))
    }

    /// The link that packets to anywhere leave by, and its route: the main table's default with the lowest metric.
    pub fn default_route(&mut self) -> Result<Option<Route>, Error> {
        let routes = self.routes()?;
        Ok(routes
            .into_iter()
            .filter(|r| r.dst.len == 0 && r.dst.addr.is_ipv4() && r.table == TABLE_MAIN && r.index.is_some())
            .min_by_key(|r| r.metric.unwrap_or(0)))
    }
}

const CREATE_NEW: u16 = flags::CREATE | flags::EXCL;

fn content_when_missing(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(e) if e.is_missing() => Ok(()),
        answer => answer,
    }
}

fn write_route(w: &mut Writer, route: &Route) {
    let scope = if route.gateway.is_some() || route.dst.addr.is_ipv6() { SCOPE_UNIVERSE } else { SCOPE_LINK };
    let mut body = [0u8; 12];
    body[0] = family(route.dst.addr);
    body[1] = route.dst.len;
    body[4] = u8::try_from(route.table).unwrap_or(0);
    body[5] = route.protocol;
    body[6] = scope;
    body[7] = RTN_UNICAST;
    if route.onlink {
        body[8..12].copy_from_slice(&(RTNH_F_ONLINK).to_ne_bytes());
    }
    w.raw(&body);
    if route.dst.len > 0 {
        w.attr(RTA_DST, &octets(route.dst.network().addr));
    }
    if let Some(gateway) = route.gateway {
        w.attr(RTA_GATEWAY, &octets(gateway));
    }
    if let Some(index) = route.index {
        w.attr_u32(RTA_OIF, index);
    }
    if let Some(source) = route.source {
        w.attr(RTA_PREFSRC, &octets(source));
    }
    if let Some(metric) = route.metric {
        w.attr_u32(RTA_PRIORITY, metric);
    }
    w.attr_u32(RTA_TABLE, route.table);
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, value: u32, change: u32) -> [u8; 16] {
    let mut body = [0u8; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&value.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

/// `struct ifaddrmsg`.
fn ifaddr(index: u32, address: Prefix) -> [u8; 8] {
    let mut body = [0u8; 8];
    body[0] = family(address.addr);
    body[1] = address.len;
    if address.addr.is_loopback() {
        body[3] = 254; // RT_SCOPE_HOST
    }
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

/// `struct ndmsg`.
fn neighbour(index: u32, addr: IpAddr, state: u16) -> [u8; 12] {
    let mut body = [0u8; 12];
    body[0] = family(addr);
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&state.to_ne_bytes());
    body
}

fn family(addr: IpAddr) -> u8 {
    (if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
