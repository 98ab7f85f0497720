//! Rtnetlink in one network namespace: [`Rtnl`], and what the files of its topics share. `link`, `address`, `route`,
//! `neighbour` and `rule` each add the calls of their topic to it. Does I/O through `Socket`.

use std::fmt;
use std::net::IpAddr;

use super::message::Writer;
use super::socket::flags;
use super::{Error, Socket};
use crate::netns::NetNs;

/// Speaks rtnetlink to one network namespace: that of the thread that opened it, or the one it was opened in. It can be
/// used from any thread. Things are named by interface index; [`Rtnl::link`] finds one by name.
///
/// Every call is one request of the kernel, done whole or refused whole. Calls named `put` and `delete` are idempotent:
/// what is there already as asked for, or gone already, is success. Those named `add` fail with [`Error::is_exists`].
///
/// Lists are whole: an attribute, a kind or a flag that this crate has no name for is in the `other` of what was read
/// ([`Attribute`]), and goes back into the kernel when the value is put again. So whoever compares desired with actual
/// never deletes or doubles a thing because he saw half of it.
#[derive(Debug)]
pub struct Rtnl {
    pub(super) socket: Socket,
}

impl Rtnl {
    /// For the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Rtnl { socket: Socket::route()? })
    }

    /// By which the kernel names this socket as the cause of a change: see [`super::Monitor::drain_except`].
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// For another namespace.
    pub fn open_in(ns: &NetNs) -> Result<Self, Error> {
        ns.run(Rtnl::open).map_err(|source| Error::Io { what: "entering the network namespace".to_owned(), source })?
    }
}

/// The number by which routes, rules, neighbours and addresses of ours are told from those of an administrator (4), of
/// the kernel (2) or of another daemon (BIRD has 12, DHCP 16, zebra 11, OSPF 188): `ip route show proto 70`. All clusters
/// of a host and all versions share it; whose cluster's a route is follows from its destination. Nobody registers these
/// numbers: 70 is "F", and free in iproute2's list.
pub const PROTOCOL: u8 = 70;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// An attribute that this crate has no name for, kept as the kernel told it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// RTA_*, NDA_* or FRA_*, by what it was found on.
    pub kind: u16,
    /// Without header and padding.
    pub value: Vec<u8>,
}

impl Attribute {
    pub(super) fn new(kind: u16, value: &[u8]) -> Self {
        Attribute { kind, value: value.to_vec() }
    }
}

pub(super) fn write_all(w: &mut Writer, attributes: &[Attribute]) {
    attributes.iter().for_each(|a| w.attr(a.kind, &a.value));
}

/// Of a request for something that must not be there yet.
pub(super) const CREATE_NEW: u16 = flags::CREATE | flags::EXCL;
/// Of a request that takes the place of what is there.
pub(super) const CREATE_OR_REPLACE: u16 = flags::CREATE | flags::REPLACE;

/// What is gone already is deleted.
pub(super) fn missing_is_done(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(e) if e.is_missing() => Ok(()),
        answer => answer,
    }
}

/// AF_INET or AF_INET6, as headers have it.
pub(super) fn family(v6: bool) -> u8 {
    (if v6 { libc::AF_INET6 } else { libc::AF_INET }) as u8
}

/// The bytes of an address in network order.
pub(super) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

pub(super) fn mac(value: &[u8]) -> Option<Mac> {
    Some(Mac(value.try_into().ok()?))
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
