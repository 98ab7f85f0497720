//! Capabilities (RFC 5492): what a speaker tells in its OPEN that it can. Pure. Called by [`super::open`]; what follows
//! from both sides' is `session::negotiated`.

use crate::family::AfiSafi;
use crate::wire::Reader;

/// Seconds that the twelve bits of a restart time can say (RFC 4724).
pub const MAX_RESTART_TIME: u16 = 4095;
/// Seconds that the 24 bits of a long-lived stale time can say (RFC 9494).
pub const MAX_STALE_TIME: u32 = 0xff_ffff;

/// Capability codes.
mod code {
    pub const MULTIPROTOCOL: u8 = 1;
    pub const ROUTE_REFRESH: u8 = 2;
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    pub const EXTENDED_MESSAGE: u8 = 6;
    pub const ROLE: u8 = 9;
    pub const GRACEFUL_RESTART: u8 = 64;
    pub const FOUR_OCTET_AS: u8 = 65;
    pub const ADD_PATH: u8 = 69;
    pub const ENHANCED_ROUTE_REFRESH: u8 = 70;
    pub const LONG_LIVED: u8 = 71;
}

const RESTARTED: u8 = 0x80;
const NOTIFICATION: u8 = 0x40;
const FORWARDING: u8 = 0x80;

/// What a speaker is to its peer (RFC 9234).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// It sells transit.
    Provider = 0,
    /// A route server.
    RouteServer = 1,
    /// A client of a route server.
    RouteServerClient = 2,
    /// It buys transit.
    Customer = 3,
    /// Neither.
    Peer = 4,
}

impl Role {
    /// Each.
    pub const ALL: [Role; 5] = [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];

    /// What the peer must be.
    pub fn counterpart(self) -> Role {
        match self {
            Role::Provider => Role::Customer,
            Role::Customer => Role::Provider,
            Role::RouteServer => Role::RouteServerClient,
            Role::RouteServerClient => Role::RouteServer,
            Role::Peer => Role::Peer,
        }
    }

    fn from_wire(role: u8) -> Option<Role> {
        Role::ALL.into_iter().find(|known| *known as u8 == role)
    }
}

/// Graceful restart (RFC 4724, and 8538's bit).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The R bit: the speaker has just restarted, and doesn't wait for the peer's End-of-RIB of its own.
    pub restarted: bool,
    /// The N bit: routes outlive a NOTIFICATION, too (RFC 8538).
    pub notification: bool,
    /// Seconds in which the session will be back.
    pub time: u16,
    /// Families, and whether their forwarding state outlived the restart.
    pub families: Vec<(AfiSafi, bool)>,
}

/// A family's long-lived graceful restart (RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLived {
    /// The family.
    pub family: AfiSafi,
    /// Whether its forwarding state outlived the restart.
    pub forwarding: bool,
    /// Seconds that its routes may be kept.
    pub stale_time: u32,
}

/// Which way a family's path identifiers go (RFC 7911), seen from who tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPath {
    /// The family.
    pub family: AfiSafi,
    /// It can receive several paths.
    pub receive: bool,
    /// It can send them.
    pub send: bool,
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// A family is carried (RFC 4760).
    Multiprotocol(AfiSafi),
    /// ROUTE-REFRESH is understood (RFC 2918).
    RouteRefresh,
    /// Families whose next hop may be of the AFI behind (RFC 8950).
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// Messages may be longer than 4096 bytes (RFC 8654).
    ExtendedMessage,
    /// What the speaker is to its peer (RFC 9234); none is a role that nobody knows.
    Role(Option<Role>),
    /// RFC 4724.
    GracefulRestart(GracefulRestart),
    /// The speaker's AS, and that its AS numbers have four octets (RFC 6793).
    FourOctetAs(u32),
    /// RFC 7911.
    AddPath(Vec<AddPath>),
    /// A refresh has a beginning and an end (RFC 7313).
    EnhancedRouteRefresh,
    /// RFC 9494.
    LongLived(Vec<LongLived>),
    /// Any other.
    Unknown {
        /// Its code.
        code: u8,
        /// What it says.
        value: Vec<u8>,
    },
}

impl Capability {
    /// Reads what stands behind a code and a length; none when its length is none of the capability's.
    pub(crate) fn read(code: u8, value: &[u8]) -> Option<Capability> {
        let mut reader = Reader::new(value);
        let read = match code {
            code::MULTIPROTOCOL => {
                let (afi, _reserved, safi) = (reader.u16()?, reader.u8()?, reader.u8()?);
                Capability::Multiprotocol(AfiSafi { afi, safi })
            }
            code::ROUTE_REFRESH => Capability::RouteRefresh,
            code::EXTENDED_NEXT_HOP => {
                Capability::ExtendedNextHop(each(&mut reader, |[a, b, _, safi, c, d]: [u8; 6]| {
                    (AfiSafi { afi: u16::from_be_bytes([a, b]), safi }, u16::from_be_bytes([c, d]))
                })?)
            }
            code::EXTENDED_MESSAGE => Capability::ExtendedMessage,
            code::ROLE => Capability::Role(Role::from_wire(reader.u8()?)),
            code::GRACEFUL_RESTART => {
                let [flags, low] = reader.array()?;
                Capability::GracefulRestart(GracefulRestart {
                    restarted: flags & RESTARTED != 0,
                    notification: flags & NOTIFICATION != 0,
                    time: u16::from_be_bytes([flags & 0x0f, low]),
                    families: each(&mut reader, |[a, b, safi, flags]| (family(a, b, safi), flags & FORWARDING != 0))?,
                })
            }
            code::FOUR_OCTET_AS => Capability::FourOctetAs(reader.u32()?),
            code::ADD_PATH => Capability::AddPath(each(&mut reader, |[a, b, safi, mode]| {
                // A mode that is not defined is none (RFC 7911 4).
                let known = (1..=3).contains(&mode);
                AddPath { family: family(a, b, safi), receive: known && mode & 1 != 0, send: known && mode & 2 != 0 }
            })?),
            code::ENHANCED_ROUTE_REFRESH => Capability::EnhancedRouteRefresh,
            code::LONG_LIVED => Capability::LongLived(each(&mut reader, |[a, b, safi, flags, c, d, e]| LongLived {
                family: family(a, b, safi),
                forwarding: flags & FORWARDING != 0,
                stale_time: u32::from_be_bytes([0, c, d, e]),
            })?),
            code => return Some(Capability::Unknown { code, value: value.to_vec() }),
        };
        reader.is_empty().then_some(read)
    }

    /// Writes code, length and value.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0, 0]);
        let code = self.write_value(out);
        let length = u8::try_from(out.len() - at - 2).unwrap_or(u8::MAX);
        out[at..at + 2].copy_from_slice(&[code, length]);
    }

    fn write_value(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Capability::Multiprotocol(family) => {
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.extend_from_slice(&[0, family.safi]);
                code::MULTIPROTOCOL
            }
            Capability::RouteRefresh => code::ROUTE_REFRESH,
            Capability::ExtendedNextHop(families) => {
                for (family, next_hop) in families {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[0, family.safi]);
                    out.extend_from_slice(&next_hop.to_be_bytes());
                }
                code::EXTENDED_NEXT_HOP
            }
            Capability::ExtendedMessage => code::EXTENDED_MESSAGE,
            Capability::Role(role) => {
                // A role that nobody knows is one that is not assigned.
                out.push(role.map_or(u8::MAX, |role| role as u8));
                code::ROLE
            }
            Capability::GracefulRestart(restart) => {
                let bits = |set: bool, bit: u8| if set { bit } else { 0 };
                let [high, low] = restart.time.min(MAX_RESTART_TIME).to_be_bytes();
                let flags = bits(restart.restarted, RESTARTED) | bits(restart.notification, NOTIFICATION);
                out.extend_from_slice(&[flags | high, low]);
                for (family, forwarding) in &restart.families {
                    write_family(out, *family, bits(*forwarding, FORWARDING));
                }
                code::GRACEFUL_RESTART
            }
            Capability::FourOctetAs(number) => {
                out.extend_from_slice(&number.to_be_bytes());
                code::FOUR_OCTET_AS
            }
            Capability::AddPath(families) => {
                for entry in families {
                    write_family(out, entry.family, u8::from(entry.receive) | u8::from(entry.send) << 1);
                }
                code::ADD_PATH
            }
            Capability::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Capability::LongLived(families) => {
                for entry in families {
                    write_family(out, entry.family, if entry.forwarding { FORWARDING } else { 0 });
                    out.extend_from_slice(&entry.stale_time.min(MAX_STALE_TIME).to_be_bytes()[1..]);
                }
                code::LONG_LIVED
            }
            Capability::Unknown { code, value } => {
                out.extend_from_slice(&value[..value.len().min(usize::from(u8::MAX))]);
                *code
            }
        }
    }
}

fn family(a: u8, b: u8, safi: u8) -> AfiSafi {
    AfiSafi { afi: u16::from_be_bytes([a, b]), safi }
}

fn write_family(out: &mut Vec<u8>, family: AfiSafi, flags: u8) {
    out.extend_from_slice(&family.afi.to_be_bytes());
    out.extend_from_slice(&[family.safi, flags]);
}

/// Entries of a fixed length, to the end.
fn each<const N: usize, T>(reader: &mut Reader<'_>, one: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let mut all = Vec::with_capacity(reader.rest().len() / N);
    while !reader.is_empty() {
        all.push(one(reader.array()?));
    }
    Some(all)
}
