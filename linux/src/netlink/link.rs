//! Links: network interfaces, virtual ones made and removed. Does I/O through `Socket`; [`decode`] is pure.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Error;
use super::message::{Writer, attr, attrs, split, text, u32_at};
use super::rtnl::{CREATE_NEW, Mac, Rtnl, ip, mac, missing_is_done, octets};

pub(super) const NEWLINK: u16 = 16;
pub(super) const DELLINK: u16 = 17;
const GETLINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_GBP: u16 = 23;
const IFLA_VRF_TABLE: u16 = 1;
const IFLA_IPTUN_LOCAL: u16 = 2;
const IFLA_IPTUN_REMOTE: u16 = 3;
const IFLA_IPTUN_PMTUDISC: u16 = 10;

const IFF_UP: u32 = libc::IFF_UP as u32;
const IFF_PROMISC: u32 = libc::IFF_PROMISC as u32;

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, good in its network namespace only.
    pub index: u32,
    /// 15 bytes at most.
    pub name: String,
    /// None where the link has none of six bytes: a tunnel.
    pub mac: Option<Mac>,
    /// Bytes of a packet.
    pub mtu: u32,
    /// Somebody wants it up; whether it carries anything is `carrier`.
    pub up: bool,
    /// There is somebody at the other end.
    pub carrier: bool,
    /// None for hardware and loopback.
    pub kind: Option<LinkKind>,
    /// The bridge that this is a port of, or the VRF that it is in.
    pub master: Option<u32>,
    /// The index of the other end or of the device below, maybe in another namespace.
    pub peer: Option<u32>,
    /// The host's own `lo`.
    pub loopback: bool,
    /// It takes frames for everybody.
    pub promiscuous: bool,
    /// A bridge port that sends frames back out where they came in.
    pub hairpin: bool,
    /// What somebody wrote on it: `ip link show` has it as its alias.
    pub alias: Option<String>,
}

/// What makes a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A switch in the kernel.
    Bridge,
    /// One end of a pair: what goes in here comes out there.
    Veth,
    /// Ethernet in UDP.
    Vxlan(Vxlan),
    /// IPv4 in IPv4.
    Ipip(Ipip),
    /// Links that are in it have this table of routes to themselves.
    Vrf(u32),
    /// By the kernel's name: "tun", "macvlan", "wireguard", …
    Other(String),
}

impl Link {
    /// Whether it carries packets to other hosts in packets of its own: VXLAN, IPIP, WireGuard.
    pub fn is_tunnel(&self) -> bool {
        match &self.kind {
            Some(LinkKind::Vxlan(_) | LinkKind::Ipip(_)) => true,
            Some(LinkKind::Other(kind)) => kind == super::wireguard::WIREGUARD,
            _ => false,
        }
    }
}

/// Ethernet in UDP (RFC 7348): a link whose frames go to other hosts. Which host has which hardware address is in its
/// forwarding database ([`super::Fdb`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vxlan {
    /// The network's number (VNI), up to 16,777,215.
    pub id: u32,
    /// UDP port of all hosts. The registered one is 4789, flannel's and the kernel's own default 8472.
    pub port: u16,
    /// The address that outer packets leave from.
    pub local: Option<IpAddr>,
    /// The link that outer packets leave by; none leaves it to routing.
    pub parent: Option<u32>,
    /// Learns from the frames that come in who is where. Off where entries are written by a control plane.
    pub learning: bool,
    /// Carries packet marks along (group based policy).
    pub gbp: bool,
}

/// IPv4 in IPv4 (RFC 2003). Of links with the same two addresses there is one in a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipip {
    /// The address that outer packets leave from.
    pub local: Option<Ipv4Addr>,
    /// The other end; none: the gateway of the route by which a packet comes.
    pub remote: Option<Ipv4Addr>,
}

/// A pair of virtual Ethernet interfaces to make. The near end is up; the far end can't be before it has a peer.
#[derive(Debug)]
pub struct NewVeth<'a> {
    /// Of the near end, 15 bytes at most.
    pub name: &'a str,
    /// None: the kernel rolls one.
    pub mac: Option<Mac>,
    /// The bridge that the near end joins.
    pub master: Option<u32>,
    /// Bytes of a packet, of both ends.
    pub mtu: u32,
    /// Of the far end, in the namespace where it goes.
    pub peer_name: &'a str,
    /// None: the kernel rolls one.
    pub peer_mac: Option<Mac>,
    /// Where the far end goes; none leaves it here.
    pub peer_ns: Option<BorrowedFd<'a>>,
}

impl Rtnl {
    /// Every interface of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.socket.dump(GETLINK, "listing links", |w| w.raw(&ifinfo(0, 0, 0)), |m| decode(m.body))
    }

    /// None when there is no such link.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let fill = |w: &mut Writer| {
            w.raw(&ifinfo(0, 0, 0));
            w.attr_str(IFLA_IFNAME, name);
        };
        self.find_link(&format!("looking for link {name}"), fill)
    }

    /// None when there is no such link.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.find_link(&format!("looking for link {index}"), |w| w.raw(&ifinfo(index, 0, 0)))
    }

    fn find_link(&mut self, what: &str, fill: impl FnOnce(&mut Writer)) -> Result<Option<Link>, Error> {
        match self.socket.get(GETLINK, what, fill, |m| decode(m.body)) {
            Err(e) if e.is_missing() => Ok(None),
            answer => answer,
        }
    }

    /// Makes a bridge that is up.
    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<(), Error> {
        self.add_link(name, Some(mac), mtu, "bridge", |_| ())
    }

    /// Makes a VXLAN link that is up. A tunnel of another shape that has the name is refused as there
    /// ([`Error::is_exists`]): its [`LinkKind::Vxlan`] says how it differs, and only a new one can be of another shape.
    pub fn add_vxlan(&mut self, name: &str, mac: Option<Mac>, mtu: u32, vxlan: &Vxlan) -> Result<(), Error> {
        self.add_link(name, mac, mtu, "vxlan", |w| {
            w.attr_u32(IFLA_VXLAN_ID, vxlan.id);
            w.attr(IFLA_VXLAN_PORT, &vxlan.port.to_be_bytes());
            w.attr(IFLA_VXLAN_LEARNING, &[u8::from(vxlan.learning)]);
            if let Some(local) = vxlan.local {
                w.attr(if local.is_ipv6() { IFLA_VXLAN_LOCAL6 } else { IFLA_VXLAN_LOCAL }, &octets(local));
            }
            if let Some(parent) = vxlan.parent {
                w.attr_u32(IFLA_VXLAN_LINK, parent);
            }
            if vxlan.gbp {
                w.attr(IFLA_VXLAN_GBP, &[]);
            }
        })
    }

    /// Makes an IPIP link that is up; what is too long is cut into pieces on its way. One of the same two addresses is
    /// refused as there ([`Error::is_exists`]).
    pub fn add_ipip(&mut self, name: &str, mtu: u32, ipip: &Ipip) -> Result<(), Error> {
        self.add_link(name, None, mtu, "ipip", |w| write_ipip(w, ipip))
    }

    /// Makes a WireGuard link that is up. Who speaks to whom by it is [`super::wireguard::WireGuard`]'s.
    pub fn add_wireguard(&mut self, name: &str, mtu: u32) -> Result<(), Error> {
        self.add_link(name, None, mtu, super::wireguard::WIREGUARD, |_| ())
    }

    fn add_link(
        &mut self,
        name: &str,
        mac: Option<Mac>,
        mtu: u32,
        kind: &str,
        data: impl FnOnce(&mut Writer),
    ) -> Result<(), Error> {
        self.socket.request(NEWLINK, CREATE_NEW, &format!("adding {kind} {name}"), |w| {
            w.raw(&ifinfo(0, IFF_UP, IFF_UP));
            w.attr_str(IFLA_IFNAME, name);
            w.attr_u32(IFLA_MTU, mtu);
            if let Some(mac) = mac {
                w.attr(IFLA_ADDRESS, &mac.0);
            }
            let info = w.nest(IFLA_LINKINFO);
            w.attr_str(IFLA_INFO_KIND, kind);
            let nest = w.nest(IFLA_INFO_DATA);
            data(w);
            w.end_nest(nest);
            w.end_nest(info);
        })
    }

    /// Makes the pair; fails when one of the names is taken.
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

    /// Removes a link; its peer goes with it, and so do its addresses, routes and neighbours.
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let answer = self.socket.request(DELLINK, 0, &format!("removing link {name}"), |w| {
            w.raw(&ifinfo(0, 0, 0));
            w.attr_str(IFLA_IFNAME, name);
        });
        missing_is_done(answer)
    }

    /// Lets it carry packets, or not; a link that goes down loses its routes.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        let word = if up { "up" } else { "down" };
        let value = if up { IFF_UP } else { 0 };
        self.set(index, &format!("setting link {index} {word}"), value, IFF_UP, |_| ())
    }

    /// Takes frames for everybody, or only its own.
    pub fn set_promiscuous(&mut self, index: u32, on: bool) -> Result<(), Error> {
        let value = if on { IFF_PROMISC } else { 0 };
        self.set(index, &format!("making link {index} promiscuous"), value, IFF_PROMISC, |_| ())
    }

    /// Bytes of a packet.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        self.set(index, &format!("setting the MTU of link {index} to {mtu}"), 0, 0, |w| w.attr_u32(IFLA_MTU, mtu))
    }

    /// Writes on a link whose it is, 255 bytes at most: its alias.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), Error> {
        self.set(index, &format!("setting the alias of link {index} to {alias}"), 0, 0, |w| {
            w.attr(IFLA_IFALIAS, alias.as_bytes());
        })
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
}

fn write_ipip(w: &mut Writer, ipip: &Ipip) {
    for (kind, address) in [(IFLA_IPTUN_LOCAL, ipip.local), (IFLA_IPTUN_REMOTE, ipip.remote)] {
        if let Some(address) = address {
            w.attr(kind, &address.octets());
        }
    }
    w.attr(IFLA_IPTUN_PMTUDISC, &[0]);
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, value: u32, change: u32) -> [u8; 16] {
    let mut body = [0u8; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&value.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

/// Takes a message's body apart. Unlike other topics' a link has no `other`: it is never put again as a whole.
pub(super) fn decode(body: &[u8]) -> Option<Link> {
    let (fixed, rest) = split(body, 16)?;
    let bits = u32_at(fixed, 8)?;
    let mut link = Link {
        index: u32_at(fixed, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: bits & IFF_UP != 0,
        carrier: bits & libc::IFF_RUNNING as u32 != 0,
        kind: None,
        master: None,
        peer: None,
        loopback: bits & libc::IFF_LOOPBACK as u32 != 0,
        promiscuous: bits & IFF_PROMISC != 0,
        hairpin: false,
        alias: None,
    };
    for (kind, value) in attrs(rest) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.mac = mac(value),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINK => link.peer = u32_at(value, 0),
            IFLA_IFALIAS => link.alias = Some(text(value)).filter(|alias| !alias.is_empty()),
            IFLA_PROMISCUITY => link.promiscuous |= u32_at(value, 0)? != 0,
            IFLA_LINKINFO => {
                link.kind = link_kind(value);
                let port = attr(value, IFLA_INFO_SLAVE_DATA);
                link.hairpin = port.and_then(|p| attr(p, IFLA_BRPORT_MODE)).is_some_and(|v| v.first() == Some(&1));
            }
            _ => {}
        }
    }
    Some(link)
}

fn link_kind(info: &[u8]) -> Option<LinkKind> {
    let name = text(attr(info, IFLA_INFO_KIND)?);
    let data = attr(info, IFLA_INFO_DATA).unwrap_or_default();
    Some(match name.as_str() {
        "bridge" => LinkKind::Bridge,
        "veth" => LinkKind::Veth,
        "vxlan" => LinkKind::Vxlan(vxlan(data)),
        "ipip" => LinkKind::Ipip(ipip_of(data)),
        "vrf" => LinkKind::Vrf(attr(data, IFLA_VRF_TABLE).and_then(|table| u32_at(table, 0))?),
        _ => LinkKind::Other(name),
    })
}

fn ipip_of(data: &[u8]) -> Ipip {
    let address = |kind| match attr(data, kind).and_then(ip) {
        Some(IpAddr::V4(v4)) if !v4.is_unspecified() => Some(v4),
        _ => None,
    };
    Ipip { local: address(IFLA_IPTUN_LOCAL), remote: address(IFLA_IPTUN_REMOTE) }
}

fn vxlan(data: &[u8]) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for (kind, value) in attrs(data) {
        match kind {
            IFLA_VXLAN_ID => vxlan.id = u32_at(value, 0).unwrap_or(0),
            IFLA_VXLAN_PORT => vxlan.port = value.try_into().map_or(0, u16::from_be_bytes),
            IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => vxlan.local = ip(value),
            IFLA_VXLAN_LINK => vxlan.parent = u32_at(value, 0),
            IFLA_VXLAN_LEARNING => vxlan.learning = value.first() == Some(&1),
            IFLA_VXLAN_GBP => vxlan.gbp = true,
            _ => {}
        }
    }
    vxlan
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ip link add flannel.ipip type ipip local 192.0.2.1 nopmtudisc`, as its data goes to the kernel, and what the kernel
    /// tells of such a link.
    #[test]
    #[cfg(target_endian = "little")]
    fn an_ipip_link_is_written_and_read_as_the_kernels_header_says() {
        let ipip = Ipip { local: Some(Ipv4Addr::new(192, 0, 2, 1)), remote: None };
        let mut w = Writer::new();
        write_ipip(&mut w, &ipip);
        assert_eq!(w.bytes(), [8, 0, 2, 0, 192, 0, 2, 1, 5, 0, 10, 0, 0, 0, 0, 0]);
        let data = [&w.bytes()[..8], &[8, 0, 3, 0, 0, 0, 0, 0]].concat();
        let mut info = Writer::new();
        info.attr_str(IFLA_INFO_KIND, "ipip");
        info.attr(IFLA_INFO_DATA, &data);
        assert_eq!(link_kind(info.bytes()), Some(LinkKind::Ipip(ipip)));
        for cut in 0..info.len() {
            let _ = link_kind(&info.bytes()[..cut]);
        }
        // An address of a tunnel is four bytes: no hardware address.
        let mut link = Writer::new();
        link.raw(&ifinfo(7, IFF_UP, 0));
        link.attr(IFLA_ADDRESS, &[192, 0, 2, 1]);
        link.attr(IFLA_LINKINFO, info.bytes());
        let read = decode(link.bytes()).expect("a link");
        assert_eq!((read.index, read.mac, read.up), (7, None, true));
    }
}
