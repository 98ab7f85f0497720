//! WireGuard's links beyond what rtnetlink knows of them: their key, their port, and their peers, by generic netlink (the
//! kernel's `uapi/linux/wireguard.h`). Does I/O through `Socket`; [`decode`], [`merged`] and what is written are pure.
//!
//! ```text
//! controller  GETFAMILY "wireguard"        ──► the number by which its messages go
//! SET_DEVICE  index, private key, port     or  peers: public key, endpoint, pre-shared key, allowed addresses
//! GET_DEVICE  index                        ──► messages with a part of the peers each; a peer with many addresses goes on
//! ```
//!
//! The kernel tells nobody of changes here: whoever keeps peers in step has to look.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use meta::Prefix;

use super::message::{Writer, attr, attrs, split, text, u16_at, u32_at};
use super::rtnl::{family, ip, octets};
use super::{Error, Socket};
use crate::netns::NetNs;

/// The name of the family, and of links of its kind.
pub const WIREGUARD: &str = "wireguard";
const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const VERSION: u8 = 1;
/// `struct genlmsghdr`.
const HEADER: usize = 4;

const DEVICE_IFINDEX: u16 = 1;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_ALLOWED: u16 = 9;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_LENGTH: u16 = 3;
const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;

/// A nest is 64 KiB at most, and one peer more than this still goes in.
const NEST: usize = 32 << 10;
/// Of a peer that is written: 36 bytes each.
const MOST_ALLOWED: usize = 512;

/// A public key: whom a peer is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// A private or a pre-shared key. It is in no log: nothing shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(pub [u8; 32]);

/// A link's own end, and whom it speaks to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// None before it has a private key.
    pub key: Option<PublicKey>,
    /// UDP, of both families.
    pub port: u16,
    /// In the kernel's order.
    pub peers: Vec<Peer>,
}

/// Somebody that a link speaks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whom.
    pub key: PublicKey,
    /// Where: when written, none leaves it as it is. The kernel follows a peer that speaks from elsewhere.
    pub endpoint: Option<SocketAddr>,
    /// A secret that both have besides; none: nothing but keys.
    pub psk: Option<SecretKey>,
    /// Seconds between packets that keep a translator's way open; 0: none are sent.
    pub keepalive: u16,
    /// What may come from there and goes there; no two peers of a link have the same. 512 ranges at most when written.
    pub allowed: Vec<Prefix>,
}

/// What becomes of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// It is there, and has these ranges and no others.
    Put(Peer),
    /// It is there no more.
    Remove(PublicKey),
}

/// Speaks to WireGuard in one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub struct WireGuard {
    socket: Socket,
    family: u16,
}

impl WireGuard {
    /// Fails with [`Error::is_missing`] where the kernel has none; its module is loaded with the first link.
    pub fn open() -> Result<WireGuard, Error> {
        let mut socket = Socket::generic()?;
        let what = "looking for the kernel's WireGuard";
        let fill = |w: &mut Writer| {
            w.raw(&[CTRL_CMD_GETFAMILY, VERSION, 0, 0]);
            w.attr_str(CTRL_ATTR_FAMILY_NAME, WIREGUARD);
        };
        let found = socket.get(CONTROLLER, what, fill, |m| family_of(m.body))?;
        let family =
            found.ok_or_else(|| Error::Malformed { what: what.into(), detail: "a family without a number" })?;
        Ok(WireGuard { socket, family })
    }

    /// For another namespace.
    pub fn open_in(ns: &NetNs) -> Result<WireGuard, Error> {
        ns.run(WireGuard::open)
            .map_err(|source| Error::Io { what: "entering the network namespace".to_owned(), source })?
    }

    /// The link's end and its peers.
    pub fn device(&mut self, index: u32) -> Result<Device, Error> {
        let fill = |w: &mut Writer| {
            w.raw(&[GET_DEVICE, VERSION, 0, 0]);
            w.attr_u32(DEVICE_IFINDEX, index);
        };
        let what = format!("listing the WireGuard peers of link {index}");
        Ok(merged(self.socket.dump(self.family, &what, fill, |m| decode(m.body))?))
    }

    /// Gives a link its key and its port.
    pub fn set(&mut self, index: u32, key: &SecretKey, port: u16) -> Result<(), Error> {
        let what = format!("setting the WireGuard key and UDP port {port} of link {index}");
        self.socket.request(self.family, 0, &what, |w| write_device(w, index, key, port))
    }

    /// Changes peers, in order, in as many messages as it takes.
    pub fn change(&mut self, index: u32, changes: &[PeerChange]) -> Result<(), Error> {
        let what = format!("changing WireGuard peers of link {index}");
        let longest = changes.iter().map(|c| if let PeerChange::Put(peer) = c { peer.allowed.len() } else { 0 }).max();
        if longest.is_some_and(|longest| longest > MOST_ALLOWED) {
            return Err(Error::Malformed { what, detail: "a peer has more ranges than one message holds" });
        }
        let mut rest = changes;
        while !rest.is_empty() {
            let mut written = 0;
            self.socket.request(self.family, 0, &what, |w| written = write_peers(w, index, rest))?;
            rest = &rest[written.max(1)..];
        }
        Ok(())
    }
}

fn write_device(w: &mut Writer, index: u32, key: &SecretKey, port: u16) {
    w.raw(&[SET_DEVICE, VERSION, 0, 0]);
    w.attr_u32(DEVICE_IFINDEX, index);
    w.attr(DEVICE_PRIVATE_KEY, &key.0);
    w.attr(DEVICE_LISTEN_PORT, &port.to_ne_bytes());
}

/// Writes as many as a message holds; how many that were.
fn write_peers(w: &mut Writer, index: u32, changes: &[PeerChange]) -> usize {
    w.raw(&[SET_DEVICE, VERSION, 0, 0]);
    w.attr_u32(DEVICE_IFINDEX, index);
    let peers = w.nest(DEVICE_PEERS);
    let mut written = 0;
    for change in changes {
        if w.nest_len(peers) > NEST {
            break;
        }
        let nest = w.nest(0);
        match change {
            PeerChange::Put(peer) => write_peer(w, peer),
            PeerChange::Remove(key) => {
                w.attr(PEER_PUBLIC_KEY, &key.0);
                w.attr_u32(PEER_FLAGS, REMOVE);
            }
        }
        w.end_nest(nest);
        written += 1;
    }
    w.end_nest(peers);
    written
}

fn write_peer(w: &mut Writer, peer: &Peer) {
    w.attr(PEER_PUBLIC_KEY, &peer.key.0);
    w.attr_u32(PEER_FLAGS, REPLACE_ALLOWED);
    // None of them is one of zeros.
    w.attr(PEER_PRESHARED_KEY, peer.psk.as_ref().map_or(&[0; 32], |key| &key.0));
    if let Some(endpoint) = peer.endpoint {
        w.attr(PEER_ENDPOINT, &socket_address(endpoint));
    }
    w.attr(PEER_KEEPALIVE, &peer.keepalive.to_ne_bytes());
    let all = w.nest(PEER_ALLOWED);
    for range in &peer.allowed {
        let nest = w.nest(0);
        w.attr(ALLOWED_FAMILY, &u16::from(family(range.is_ipv6())).to_ne_bytes());
        w.attr(ALLOWED_ADDRESS, &octets(range.addr));
        w.attr(ALLOWED_LENGTH, &[range.len]);
        w.end_nest(nest);
    }
    w.end_nest(all);
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = u16::from(family(address.is_ipv6())).to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn address_of(value: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(value.get(2..4)?.try_into().ok()?);
    match i32::from(u16_at(value, 0)?) {
        libc::AF_INET => {
            let ip: [u8; 4] = value.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(value.get(4..8)?.try_into().ok()?);
            let ip: [u8; 16] = value.get(8..24)?.try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, u32_at(value, 24)?).into())
        }
        _ => None,
    }
}

fn family_of(body: &[u8]) -> Option<u16> {
    let (_, rest) = split(body, HEADER)?;
    (text(attr(rest, CTRL_ATTR_FAMILY_NAME)?) == WIREGUARD).then_some(())?;
    u16_at(attr(rest, CTRL_ATTR_FAMILY_ID)?, 0)
}

/// Takes one message of an answer apart. What is cut short ends the walk.
pub fn decode(body: &[u8]) -> Option<Device> {
    let (_, rest) = split(body, HEADER)?;
    let mut device = Device::default();
    for (kind, value) in attrs(rest) {
        match kind {
            DEVICE_PUBLIC_KEY => device.key = key(value).map(PublicKey),
            DEVICE_LISTEN_PORT => device.port = u16_at(value, 0)?,
            DEVICE_PEERS => device.peers = attrs(value).filter_map(|(_, value)| peer(value)).collect(),
            _ => {}
        }
    }
    Some(device)
}

/// What the messages of an answer say together: a peer whose addresses did not fit is told again with the rest of them.
pub fn merged(parts: Vec<Device>) -> Device {
    let mut whole = Device::default();
    for part in parts {
        whole.key = whole.key.or(part.key);
        whole.port = whole.port.max(part.port);
        for peer in part.peers {
            match whole.peers.last_mut().filter(|last| last.key == peer.key) {
                Some(last) => last.allowed.extend(peer.allowed),
                None => whole.peers.push(peer),
            }
        }
    }
    whole
}

fn peer(value: &[u8]) -> Option<Peer> {
    let mut peer = Peer {
        key: PublicKey(key(attr(value, PEER_PUBLIC_KEY)?)?),
        endpoint: None,
        psk: None,
        keepalive: 0,
        allowed: Vec::new(),
    };
    for (kind, value) in attrs(value) {
        match kind {
            PEER_PRESHARED_KEY => peer.psk = key(value).filter(|key| *key != [0; 32]).map(SecretKey),
            PEER_ENDPOINT => peer.endpoint = address_of(value),
            PEER_KEEPALIVE => peer.keepalive = u16_at(value, 0)?,
            PEER_ALLOWED => peer.allowed = attrs(value).filter_map(|(_, value)| allowed(value)).collect(),
            _ => {}
        }
    }
    Some(peer)
}

fn allowed(value: &[u8]) -> Option<Prefix> {
    let addr: IpAddr = ip(attr(value, ALLOWED_ADDRESS)?)?;
    let len = *attr(value, ALLOWED_LENGTH)?.first()?;
    (len <= Prefix::host(addr).len).then_some(Prefix { addr, len })
}

fn key(value: &[u8]) -> Option<[u8; 32]> {
    value.try_into().ok()
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_of(n: u8) -> Peer {
        Peer {
            key: PublicKey([n; 32]),
            endpoint: Some(SocketAddr::from(([192, 0, 2, n], 51820))),
            psk: None,
            keepalive: 25,
            allowed: vec!["10.5.2.0/24".parse().unwrap()],
        }
    }

    fn bytes(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::new();
        fill(&mut w);
        w.into_bytes()
    }

    /// As the kernel's header lays it out, on a machine of little end first; `wg set` sends the same attributes.
    #[test]
    #[cfg(target_endian = "little")]
    fn what_is_sent_is_what_the_kernels_header_says() {
        let device = bytes(|w| write_device(w, 7, &SecretKey([5; 32]), 51820));
        let expected =
            [&[1, 1, 0, 0][..], &[8, 0, 1, 0, 7, 0, 0, 0], &[36, 0, 3, 0], &[5; 32], &[6, 0, 6, 0, 0x6c, 0xca, 0, 0]];
        assert_eq!(device, expected.concat());

        let put = bytes(|w| assert_eq!(write_peers(w, 7, &[PeerChange::Put(peer_of(9))]), 1));
        let allowed = [&[6, 0, 1, 0, 2, 0, 0, 0][..], &[8, 0, 2, 0, 10, 5, 2, 0], &[5, 0, 3, 0, 24, 0, 0, 0]].concat();
        let expected = [
            &[1, 1, 0, 0, 8, 0, 1, 0, 7, 0, 0, 0][..],
            // The list, and in it the peer.
            &[148, 0, 8, 0x80, 144, 0, 0, 0x80],
            &[36, 0, 1, 0],
            &[9; 32],
            &[8, 0, 3, 0, 2, 0, 0, 0],
            &[36, 0, 2, 0],
            &[0; 32],
            &[20, 0, 4, 0, 2, 0, 0xca, 0x6c, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0],
            &[6, 0, 5, 0, 25, 0, 0, 0],
            &[32, 0, 9, 0x80, 28, 0, 0, 0x80],
            &allowed,
        ];
        assert_eq!(put, expected.concat());

        let removed = bytes(|w| assert_eq!(write_peers(w, 7, &[PeerChange::Remove(PublicKey([9; 32]))]), 1));
        let expected = [
            &[1, 1, 0, 0, 8, 0, 1, 0, 7, 0, 0, 0][..],
            &[52, 0, 8, 0x80, 48, 0, 0, 0x80, 36, 0, 1, 0],
            &[9; 32],
            &[8, 0, 3, 0, 1, 0, 0, 0],
        ];
        assert_eq!(removed, expected.concat());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let six = Peer {
            endpoint: "[2001:db8::7]:51821".parse().ok(),
            psk: Some(SecretKey([3; 32])),
            allowed: vec!["fd00:5:0:2::/64".parse().unwrap(), "10.5.7.0/24".parse().unwrap()],
            ..peer_of(7)
        };
        let told = bytes(|w| {
            w.raw(&[GET_DEVICE, VERSION, 0, 0]);
            w.attr(DEVICE_PUBLIC_KEY, &[4; 32]);
            w.attr(DEVICE_LISTEN_PORT, &51820u16.to_ne_bytes());
            let peers = w.nest(DEVICE_PEERS);
            for peer in [&peer_of(9), &six] {
                let nest = w.nest(0);
                write_peer(w, peer);
                w.end_nest(nest);
            }
            w.end_nest(peers);
        });
        let device = decode(&told).unwrap();
        let expected = Device { key: Some(PublicKey([4; 32])), port: 51820, peers: vec![peer_of(9), six.clone()] };
        assert_eq!(device, expected);
        // The last peer's addresses go on in the next message.
        let more = Peer { allowed: vec!["10.5.8.0/24".parse().unwrap()], endpoint: None, ..six.clone() };
        let whole = merged(vec![device, Device { peers: vec![more], ..Device::default() }]);
        assert_eq!((whole.port, whole.peers.len(), whole.peers[1].allowed.len()), (51820, 2, 3));
        assert_eq!(whole.peers[1].endpoint, six.endpoint);
    }

    #[test]
    fn a_thousand_peers_are_several_messages() {
        let changes: Vec<PeerChange> = (0..1000u32)
            .map(|n| {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&n.to_ne_bytes());
                PeerChange::Put(Peer { key: PublicKey(key), ..peer_of(1) })
            })
            .collect();
        let (mut rest, mut messages) = (&changes[..], 0);
        while !rest.is_empty() {
            let mut written = 0;
            let sent = bytes(|w| written = write_peers(w, 7, rest));
            assert!(sent.len() < 40 << 10 && written > 0, "{} bytes", sent.len());
            (rest, messages) = (&rest[written..], messages + 1);
        }
        assert!((4..10).contains(&messages), "{messages}");
    }

    #[test]
    fn what_is_cut_short_ends_the_walk_and_secrets_are_never_shown() {
        let told = bytes(|w| {
            w.raw(&[0; 4]);
            let peers = w.nest(DEVICE_PEERS);
            let nest = w.nest(0);
            write_peer(w, &Peer { psk: Some(SecretKey([0x77; 32])), ..peer_of(9) });
            w.end_nest(nest);
            w.end_nest(peers);
        });
        for cut in 0..told.len() {
            let _ = decode(&told[..cut]);
        }
        let shown = format!("{:?}", decode(&told).unwrap());
        assert!(shown.contains("a secret") && !shown.contains("77") && !shown.contains("119"), "{shown}");
        assert_eq!(
            allowed(&bytes(|w| {
                w.attr(ALLOWED_ADDRESS, &[10, 5, 0, 0]);
                w.attr(ALLOWED_LENGTH, &[33]);
            })),
            None
        );
    }
}
