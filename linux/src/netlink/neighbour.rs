//! Neighbours (which hardware address an IP address has) and forwarding databases (behind which host or port a hardware
//! address is). The kernel has one message for both. Does I/O through `Socket`; the decoders are pure.
//!
//! A VXLAN link needs both for a host on the other end, and the route that leads there:
//!
//! ```text
//! route      10.42.1.0/24 via 10.42.1.0 dev vx onlink      the pods of the other host
//! neighbour  10.42.1.0 has 0a:58:0a:2a:01:00               the other end's hardware address
//! fdb        0a:58:0a:2a:01:00 dst 192.0.2.7               the host that frames to it go to
//! ```

use std::net::IpAddr;

use super::Error;
use super::message::{Writer, attrs, split, u16_at, u32_at};
use super::rtnl::{
    Attribute, CREATE_OR_REPLACE, Mac, PROTOCOL, Rtnl, family, ip, mac, missing_is_done, octets, write_all,
};

pub(super) const NEWNEIGH: u16 = 28;
pub(super) const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NDA_PROBES: u16 = 4;
/// Who made it. Kernels before 5.0 pass it over and read back none.
const NDA_PROTOCOL: u16 = 12;
const NUD_PERMANENT: u16 = 0x80;
/// The table of the link itself, not that of the bridge it is a port of.
const NTF_SELF: u8 = 0x02;
const AF_BRIDGE: u8 = libc::AF_BRIDGE as u8;

/// Which hardware address an IP address has on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Of the interface.
    pub index: u32,
    /// The IP address.
    pub addr: IpAddr,
    /// None: it is being asked for, or nobody answers.
    pub mac: Option<Mac>,
    /// NUD_*: how sure that is.
    pub state: u16,
    /// NTF_*.
    pub flags: u8,
    /// Who made it: [`PROTOCOL`] for us; 0 when nobody said.
    pub protocol: u8,
    /// What is beside it, to be written back as it was.
    pub other: Vec<Attribute>,
}

impl Neighbour {
    /// One that is never asked for and never forgotten.
    pub fn permanent(index: u32, addr: impl Into<IpAddr>, mac: Mac) -> Self {
        let (addr, mac) = (addr.into(), Some(mac));
        Neighbour { index, addr, mac, state: NUD_PERMANENT, flags: 0, protocol: PROTOCOL, other: Vec::new() }
    }

    /// Whether it stays until somebody removes it: nobody is asked, nothing is forgotten.
    pub fn is_permanent(&self) -> bool {
        self.state & NUD_PERMANENT != 0
    }
}

/// An entry of a forwarding database: where frames to a hardware address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fdb {
    /// Of the interface.
    pub index: u32,
    /// The destination of frames; all zeroes is the default of a VXLAN link.
    pub mac: Mac,
    /// The host behind which it is, on a VXLAN link. None: behind this port of a bridge.
    pub dst: Option<IpAddr>,
    /// NUD_*.
    pub state: u16,
    /// NTF_*.
    pub flags: u8,
    /// What is beside it, to be written back as it was.
    pub other: Vec<Attribute>,
}

impl Fdb {
    /// Frames to `mac` go to `host`, for good. The entry is the VXLAN link's own.
    pub fn remote(index: u32, mac: Mac, host: impl Into<IpAddr>) -> Self {
        Fdb { index, mac, dst: Some(host.into()), state: NUD_PERMANENT, flags: NTF_SELF, other: Vec::new() }
    }
}

impl Rtnl {
    /// Of all links, both families.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        self.socket.dump(GETNEIGH, "listing neighbours", |w| w.raw(&[0; 12]), |m| decode(m.body))
    }

    /// Takes the place of what was known of the address on the link.
    pub fn put_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), Error> {
        let what = format!("adding neighbour {} on link {}", neighbour.addr, neighbour.index);
        self.socket.request(NEWNEIGH, CREATE_OR_REPLACE, &what, |w| {
            w.raw(&ndmsg(family(neighbour.addr.is_ipv6()), neighbour.index, neighbour.state, neighbour.flags));
            w.attr(NDA_DST, &octets(neighbour.addr));
            if let Some(mac) = neighbour.mac {
                w.attr(NDA_LLADDR, &mac.0);
            }
            w.attr(NDA_PROTOCOL, &[neighbour.protocol]);
            write_all(w, &neighbour.other);
        })
    }

    /// Idempotent.
    pub fn delete_neighbour(&mut self, index: u32, addr: IpAddr) -> Result<(), Error> {
        let what = format!("removing neighbour {addr} from link {index}");
        missing_is_done(self.socket.request(DELNEIGH, 0, &what, |w| {
            w.raw(&ndmsg(family(addr.is_ipv6()), index, 0, 0));
            w.attr(NDA_DST, &octets(addr));
        }))
    }

    /// Forwarding databases of all links that have one.
    pub fn fdb(&mut self) -> Result<Vec<Fdb>, Error> {
        let fill = |w: &mut Writer| w.raw(&ndmsg(AF_BRIDGE, 0, 0, 0));
        self.socket.dump(GETNEIGH, "listing forwarding databases", fill, |m| decode_fdb(m.body))
    }

    /// Takes the place of where the hardware address was before.
    pub fn put_fdb(&mut self, entry: &Fdb) -> Result<(), Error> {
        let what = format!("adding hardware address {} to link {}", entry.mac, entry.index);
        self.socket.request(NEWNEIGH, CREATE_OR_REPLACE, &what, |w| write_fdb(w, entry))
    }

    /// Idempotent; the whole entry must be given, for several may have one hardware address.
    pub fn delete_fdb(&mut self, entry: &Fdb) -> Result<(), Error> {
        let what = format!("removing hardware address {} from link {}", entry.mac, entry.index);
        missing_is_done(self.socket.request(DELNEIGH, 0, &what, |w| write_fdb(w, entry)))
    }
}

fn write_fdb(w: &mut Writer, entry: &Fdb) {
    w.raw(&ndmsg(AF_BRIDGE, entry.index, entry.state, entry.flags));
    w.attr(NDA_LLADDR, &entry.mac.0);
    if let Some(dst) = entry.dst {
        w.attr(NDA_DST, &octets(dst));
    }
    write_all(w, &entry.other);
}

/// `struct ndmsg`.
fn ndmsg(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut body = [0u8; 12];
    body[0] = family;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&state.to_ne_bytes());
    body[10] = flags;
    body
}

/// Takes the body of a message about a neighbour apart.
pub(super) fn decode(body: &[u8]) -> Option<Neighbour> {
    let (fixed, rest) = split(body, 12)?;
    if fixed.first() == Some(&AF_BRIDGE) {
        return None;
    }
    let (mut addr, mut lladdr, mut protocol, mut other) = (None, None, 0, Vec::new());
    for (kind, value) in attrs(rest) {
        match kind {
            NDA_DST => addr = ip(value),
            NDA_LLADDR => lladdr = mac(value),
            NDA_PROTOCOL => protocol = value.first().copied().unwrap_or(0),
            NDA_CACHEINFO | NDA_PROBES => {} // ages and counts: another at each look
            _ => other.push(Attribute::new(kind, value)),
        }
    }
    Some(Neighbour {
        index: u32_at(fixed, 4)?,
        addr: addr?,
        mac: lladdr,
        state: u16_at(fixed, 8)?,
        flags: *fixed.get(10)?,
        protocol,
        other,
    })
}

/// The same about an entry of a forwarding database; none when it is about a neighbour.
pub(super) fn decode_fdb(body: &[u8]) -> Option<Fdb> {
    let (fixed, rest) = split(body, 12)?;
    if fixed.first() != Some(&AF_BRIDGE) {
        return None;
    }
    let (mut address, mut dst, mut other) = (None, None, Vec::new());
    for (kind, value) in attrs(rest) {
        match kind {
            NDA_LLADDR => address = mac(value),
            NDA_DST => dst = ip(value),
            NDA_CACHEINFO => {}
            _ => other.push(Attribute::new(kind, value)),
        }
    }
    let (state, flags) = (u16_at(fixed, 8)?, *fixed.get(10)?);
    Some(Fdb { index: u32_at(fixed, 4)?, mac: address?, dst, state, flags, other })
}
