//! UPDATE, written: routes that share their attributes go into as few messages as hold them. Pure. Called by the
//! Adj-RIB-Out.

use super::nlri::{LONGEST, Nlri, write as write_nlri};
use super::{Coding, Kind, begin};
use crate::attribute::table::{code, flag};
use crate::attribute::write::{attribute, write as write_attributes};
use crate::attribute::{Attributes, NextHop};
use crate::family::Family;
use crate::wire::set_length;

/// Why routes cannot be told to this peer: they are withdrawn from it instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackError {
    /// The attributes alone are longer than a message (RFC 8654 5).
    TooLong,
    /// The next hop is of a family that the peer does not take here (RFC 8950).
    NextHop,
}

/// Appends the messages that announce routes of one family with one set of attributes.
///
/// # Errors
/// Nothing is appended then.
pub fn announce(
    coding: &Coding,
    family: Family,
    set: &Attributes,
    routes: &[Nlri],
    out: &mut Vec<u8>,
) -> Result<(), PackError> {
    let in_body = match (family, set.next_hop) {
        (Family::Ipv4Unicast, NextHop::V4(_)) => true,
        (Family::Ipv4Unicast, NextHop::V6 { .. }) if !coding.extended_next_hop.has(family) => {
            return Err(PackError::NextHop);
        }
        (Family::Ipv6Unicast, NextHop::V4(_)) => return Err(PackError::NextHop),
        _ => false,
    };
    let mut attributes = Vec::with_capacity(128);
    write_attributes(set, coding, in_body, &mut attributes);
    // Header, two lengths; and of MP_REACH_NLRI flags, code, length, family, next hops, a reserved byte.
    let fixed = super::HEADER + 4 + attributes.len() + if in_body { 0 } else { 4 + 3 + 1 + 32 + 1 };
    if fixed + LONGEST > coding.max_message() {
        return Err(PackError::TooLong);
    }
    let mut rest = routes;
    while !rest.is_empty() {
        begin(out, Kind::Update, |out| {
            out.extend_from_slice(&[0, 0]);
            let room = coding.max_message() - fixed;
            if in_body {
                out.extend_from_slice(&u16::try_from(attributes.len()).unwrap_or(u16::MAX).to_be_bytes());
                out.extend_from_slice(&attributes);
                rest = prefixes(coding, family, rest, room, out);
            } else {
                let at = out.len();
                out.extend_from_slice(&[0, 0]);
                // RFC 7606 5.1: first of all, so that the routes are found whatever is wrong behind them.
                rest = multiprotocol(code::MP_REACH_NLRI, family, out, |out| {
                    write_next_hop(set.next_hop, out);
                    out.push(0);
                    prefixes(coding, family, rest, room, out)
                });
                out.extend_from_slice(&attributes);
                set_length(out, at, 2);
            }
        });
    }
    Ok(())
}

/// Appends the messages that withdraw routes of one family.
pub fn withdraw(coding: &Coding, family: Family, routes: &[Nlri], out: &mut Vec<u8>) {
    let room = coding.max_message() - super::HEADER - 4 - 4 - 3;
    let mut rest = routes;
    while !rest.is_empty() {
        begin(out, Kind::Update, |out| match family {
            Family::Ipv4Unicast => {
                let at = out.len();
                out.extend_from_slice(&[0, 0]);
                rest = prefixes(coding, family, rest, room, out);
                set_length(out, at, 2);
                out.extend_from_slice(&[0, 0]);
            }
            Family::Ipv6Unicast => {
                let at = out.len() + 2;
                out.extend_from_slice(&[0, 0, 0, 0]);
                rest =
                    multiprotocol(code::MP_UNREACH_NLRI, family, out, |out| prefixes(coding, family, rest, room, out));
                set_length(out, at, 2);
            }
        });
    }
}

/// Appends the message that says that all routes of a family have been told (RFC 4724 2).
pub fn end_of_rib(family: Family, out: &mut Vec<u8>) {
    begin(out, Kind::Update, |out| {
        let mut unreach = Vec::new();
        if family != Family::Ipv4Unicast {
            let family = family.wire();
            let [high, low] = family.afi.to_be_bytes();
            attribute(&mut unreach, code::MP_UNREACH_NLRI, &[high, low, family.safi]);
        }
        out.extend_from_slice(&[0, 0, 0, u8::try_from(unreach.len()).unwrap_or(0)]);
        out.extend_from_slice(&unreach);
    });
}

/// Writes as many as there is room for; those that are left come back.
fn prefixes<'r>(coding: &Coding, family: Family, routes: &'r [Nlri], room: usize, out: &mut Vec<u8>) -> &'r [Nlri] {
    let add_path = coding.add_path.has(family);
    let end = out.len() + room;
    let mut rest = routes;
    while let Some((nlri, after)) = rest.split_first() {
        let before = out.len();
        write_nlri(nlri, add_path, out);
        if out.len() > end {
            out.truncate(before);
            break;
        }
        rest = after;
    }
    rest
}

/// One of the two attributes that name a family, with a length of two bytes.
fn multiprotocol<T>(code: u8, family: Family, out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let wire = family.wire();
    out.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, code]);
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&wire.afi.to_be_bytes());
    out.push(wire.safi);
    let written = value(out);
    set_length(out, at, 2);
    written
}

fn write_next_hop(next_hop: NextHop, out: &mut Vec<u8>) {
    match next_hop {
        NextHop::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        NextHop::V6 { global, link_local: None } => {
            out.push(16);
            out.extend_from_slice(&global.octets());
        }
        NextHop::V6 { global, link_local: Some(link_local) } => {
            out.push(32);
            out.extend_from_slice(&global.octets());
            out.extend_from_slice(&link_local.octets());
        }
    }
}
