//! The kernel's table of connections: listing and forgetting flows. Does I/O through `Socket`.
//!
//! A UDP flow keeps its translation as long as packets come, also when the endpoint behind it is gone. Whoever
//! changes where a service leads forgets the flows that lead to the old place.

use std::net::IpAddr;

use crate::netlink::message::{attr, attrs, split};
use crate::netlink::{Error, Socket};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const NESTED: u16 = 0x8000;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
    /// IPPROTO_*: 6, 17, 132.
    pub protocol: u8,
    /// Of TCP, UDP and SCTP; 0 for protocols without ports.
    pub source_port: u16,
    /// As `source_port`.
    pub destination_port: u16,
}

/// A connection as the kernel knows it. `reply.source` is where the packets really went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// As the first packet was, before NAT.
    pub original: Tuple,
    /// As answers are: their source is where NAT led the first packet.
    pub reply: Tuple,
    raw_original: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Speaks to the connection table of the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// For the network namespace of the calling thread, for good.
    pub fn open() -> Result<Self, Error> {
        Ok(Conntrack { socket: Socket::netfilter()? })
    }

    /// The flows of a protocol.
    pub fn flows(&mut self, protocol: u8) -> Result<Vec<Flow>, Error> {
        let all = self.socket.dump(
            GET,
            "listing connections",
            |w| w.raw(&[0; 4]),
            |m| {
                let (_, rest) = split(m.body, 4)?;
                let flow = flow(rest)?;
                (flow.original.protocol == protocol).then_some(flow)
            },
        )?;
        Ok(all)
    }

    /// Forgets a flow; idempotent.
    pub fn forget(&mut self, flow: &Flow) -> Result<(), Error> {
        let family = if flow.original.source.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
        let answer = self.socket.request(DELETE, 0, "forgetting a connection", |w| {
            w.raw(&[family, 0, 0, 0]);
            w.attr(CTA_TUPLE_ORIG | NESTED, &flow.raw_original);
            if let Some(zone) = &flow.zone {
                w.attr(CTA_ZONE, zone);
            }
        });
        match answer {
            Err(e) if e.is_missing() => Ok(()),
            answer => answer,
        }
    }

    /// Forgets the flows of a protocol that `stale` picks, and says how many.
    pub fn forget_where(&mut self, protocol: u8, mut stale: impl FnMut(&Flow) -> bool) -> Result<usize, Error> {
        let mut count = 0;
        for flow in self.flows(protocol)? {
            if stale(&flow) {
                self.forget(&flow)?;
                count += 1;
            }
        }
        Ok(count)
    }
}

/// One flow of a dump: the attributes after the message's fixed part.
pub fn flow(rest: &[u8]) -> Option<Flow> {
    let original = attr(rest, CTA_TUPLE_ORIG)?;
    Some(Flow {
        original: tuple(original)?,
        reply: tuple(attr(rest, CTA_TUPLE_REPLY)?)?,
        raw_original: original.to_vec(),
        zone: attr(rest, CTA_ZONE).map(<[u8]>::to_vec),
    })
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    const CTA_TUPLE_IP: u16 = 1;
    const CTA_TUPLE_PROTO: u16 = 2;
    let (mut source, mut destination) = (None, None);
    for (kind, value) in attrs(attr(bytes, CTA_TUPLE_IP)?) {
        match kind {
            1 | 3 => source = ip(value),
            2 | 4 => destination = ip(value),
            _ => {}
        }
    }
    let proto = attr(bytes, CTA_TUPLE_PROTO)?;
    let port = |kind| attr(proto, kind).and_then(|v| Some(u16::from_be_bytes(v.try_into().ok()?))).unwrap_or(0);
    Some(Tuple {
        source: source?,
        destination: destination?,
        protocol: *attr(proto, 1)?.first()?,
        source_port: port(2),
        destination_port: port(3),
    })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}
