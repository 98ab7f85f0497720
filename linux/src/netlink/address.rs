//! Addresses of links. Does I/O through `Socket`; [`decode`] is pure.

use meta::Prefix;

use super::Error;
use super::message::{attr, split, u32_at};
use super::rtnl::{CREATE_OR_REPLACE, PROTOCOL, Rtnl, family, ip, missing_is_done, octets};

pub(super) const NEWADDR: u16 = 20;
pub(super) const DELADDR: u16 = 21;
const GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// Who made it. Kernels before 5.18 pass it over and read back none.
const IFA_PROTO: u16 = 11;
const IFA_F_SECONDARY: u32 = 0x01;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
/// Addresses that failed duplicate detection, are on their way out, or may still turn out to be another's.
const IFA_F_UNSETTLED: u32 = 0x08 | 0x20 | 0x40;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_HOST: u8 = 254;

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// Of the interface.
    pub index: u32,
    /// The address with the length of its network: `192.168.1.7/24`.
    pub prefix: Prefix,
    /// Not only for this link or this host.
    pub global: bool,
    /// One beside another: a second of its network, or a temporary one that hides who has it.
    pub secondary: bool,
    /// Nobody else has it, as far as the kernel knows, and it is not about to go.
    pub settled: bool,
    /// Its network is reached by a route that the kernel made with it.
    pub with_route: bool,
    /// Who made it: [`PROTOCOL`] for us; 0 when nobody said.
    pub protocol: u8,
}

impl Rtnl {
    /// Of one link, or of all.
    pub fn addresses(&mut self, index: Option<u32>) -> Result<Vec<LinkAddress>, Error> {
        let all = self.socket.dump(GETADDR, "listing addresses", |w| w.raw(&[0; 8]), |m| decode(m.body))?;
        Ok(all.into_iter().filter(|a| index.is_none_or(|i| i == a.index)).collect())
    }

    /// Gives a link an address, and with it the route to its network.
    pub fn put_address(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        self.set_address(index, address, 0)
    }

    /// The same without the route to the network: what is beside it is reached by routes of one's own.
    pub fn put_address_without_route(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        self.set_address(index, address, IFA_F_NOPREFIXROUTE)
    }

    fn set_address(&mut self, index: u32, address: Prefix, mut extra: u32) -> Result<(), Error> {
        if address.is_ipv6() {
            extra |= IFA_F_NODAD; // addresses are handed out by us: nobody else can have them
        }
        let what = format!("adding address {address} to link {index}");
        self.socket.request(NEWADDR, CREATE_OR_REPLACE, &what, |w| {
            w.raw(&ifaddr(index, address));
            w.attr(IFA_LOCAL, &octets(address.addr));
            w.attr(IFA_ADDRESS, &octets(address.addr));
            if !address.is_ipv6() && address.len < 31 {
                w.attr(IFA_BROADCAST, &octets(address.last()));
            }
            w.attr_u32(IFA_FLAGS, extra);
            w.attr(IFA_PROTO, &[PROTOCOL]);
        })
    }

    /// Idempotent.
    pub fn delete_address(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        let what = format!("removing address {address} from link {index}");
        missing_is_done(self.socket.request(DELADDR, 0, &what, |w| {
            w.raw(&ifaddr(index, address));
            w.attr(IFA_LOCAL, &octets(address.addr));
        }))
    }
}

/// `struct ifaddrmsg`.
fn ifaddr(index: u32, address: Prefix) -> [u8; 8] {
    let mut body = [0u8; 8];
    body[0] = family(address.is_ipv6());
    body[1] = address.len;
    if address.addr.is_loopback() {
        body[3] = SCOPE_HOST;
    }
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

/// Takes a message's body apart.
pub(super) fn decode(body: &[u8]) -> Option<LinkAddress> {
    let (fixed, rest) = split(body, 8)?;
    // The local address; on links without a peer both attributes say the same, and IPv6 has only the second.
    let value = attr(rest, IFA_LOCAL).or_else(|| attr(rest, IFA_ADDRESS))?;
    // The header has room for eight flags only.
    let flags = attr(rest, IFA_FLAGS).and_then(|v| u32_at(v, 0)).or(fixed.get(2).map(|f| u32::from(*f)))?;
    Some(LinkAddress {
        index: u32_at(fixed, 4)?,
        prefix: Prefix { addr: ip(value)?, len: *fixed.get(1)? },
        global: *fixed.get(3)? == SCOPE_UNIVERSE,
        secondary: flags & IFA_F_SECONDARY != 0,
        settled: flags & IFA_F_UNSETTLED == 0,
        with_route: flags & IFA_F_NOPREFIXROUTE == 0,
        protocol: attr(rest, IFA_PROTO).and_then(|v| v.first().copied()).unwrap_or(0),
    })
}
