//! A set of attributes to bytes, in the order of type codes. MP_REACH_NLRI and MP_UNREACH_NLRI are not of a set: whoever
//! packs routes writes them (`message::pack`). Pure.

use super::as_path::AS_TRANS;
use super::table::{code, find, flag};
use super::{Attributes, NextHop};
use crate::message::Coding;

/// A value longer than this needs a length of two bytes.
const SHORT: usize = 255;

/// Writes one attribute of the table.
pub(crate) fn attribute(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    let flags = find(code).map_or(flag::OPTIONAL, |row| row.category.flags());
    raw(out, flags, code, value);
}

fn raw(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend_from_slice(&[flags & !flag::EXTENDED_LENGTH, code, length]),
        Err(_) => {
            out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code]);
            out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// Writes one that may have come with the Partial bit.
fn kept(out: &mut Vec<u8>, set: &Attributes, code: u8, value: &[u8]) {
    let flags = find(code).map_or(flag::OPTIONAL, |row| row.category.flags());
    raw(out, if set.partial.has(code) { flags | flag::PARTIAL } else { flags }, code, value);
}

fn list<const N: usize>(out: &mut Vec<u8>, set: &Attributes, code: u8, values: impl ExactSizeIterator<Item = [u8; N]>) {
    if values.len() > 0 {
        let value: Vec<u8> = values.flatten().collect();
        kept(out, set, code, &value);
    }
}

/// Writes the set. NEXT_HOP is written where `with_next_hop` says so: it belongs to routes of IPv4 in the message's body.
pub(crate) fn write(set: &Attributes, coding: &Coding, with_next_hop: bool, out: &mut Vec<u8>) {
    let four_octet = coding.four_octet_as;
    attribute(out, code::ORIGIN, &[set.origin as u8]);
    let mut path = Vec::with_capacity(SHORT);
    set.as_path.write(four_octet, &mut path);
    attribute(out, code::AS_PATH, &path);
    if let (true, NextHop::V4(address)) = (with_next_hop, set.next_hop) {
        attribute(out, code::NEXT_HOP, &address.octets());
    }
    let number = |out: &mut Vec<u8>, code: u8, value: Option<u32>| {
        if let Some(value) = value {
            kept(out, set, code, &value.to_be_bytes());
        }
    };
    number(out, code::MULTI_EXIT_DISC, set.med);
    number(out, code::LOCAL_PREF, set.local_preference);
    if set.atomic_aggregate {
        attribute(out, code::ATOMIC_AGGREGATE, &[]);
    }
    if let Some(aggregator) = set.aggregator {
        let short = u16::try_from(aggregator.number).unwrap_or(AS_TRANS as u16);
        let number = aggregator.number.to_be_bytes();
        let number: &[u8] = if four_octet { &number } else { &short.to_be_bytes() };
        kept(out, set, code::AGGREGATOR, &[number, &aggregator.address.octets()].concat());
    }
    list(out, set, code::COMMUNITIES, set.communities.iter().map(|community| community.0.to_be_bytes()));
    number(out, code::ORIGINATOR_ID, set.originator_id.map(u32::from));
    list(out, set, code::CLUSTER_LIST, set.cluster_list.iter().map(|id| id.octets()));
    list(
        out,
        set,
        code::EXTENDED_COMMUNITIES,
        set.extended_communities.iter().map(|community| community.0.to_be_bytes()),
    );
    if !four_octet {
        hidden(set, out);
    }
    let large = |c: &super::LargeCommunity| {
        let mut bytes = [0; 12];
        for (place, part) in bytes.as_chunks_mut::<4>().0.iter_mut().zip([c.global, c.local1, c.local2]) {
            *place = part.to_be_bytes();
        }
        bytes
    };
    list(out, set, code::LARGE_COMMUNITY, set.large_communities.iter().map(large));
    number(out, code::ONLY_TO_CUSTOMER, set.only_to_customer);
    for unknown in &set.unknown {
        raw(out, unknown.flags, unknown.code, &unknown.value);
    }
}

/// What a speaker of two octets is to pass on to those of four (RFC 6793 4.2.2).
fn hidden(set: &Attributes, out: &mut Vec<u8>) {
    if set.as_path.needs_four_octets() {
        let mut path = Vec::new();
        set.as_path.without_confederation().write(true, &mut path);
        attribute(out, code::AS4_PATH, &path);
    }
    if let Some(aggregator) = set.aggregator.filter(|a| a.number > u32::from(u16::MAX)) {
        let value = [&aggregator.number.to_be_bytes()[..], &aggregator.address.octets()].concat();
        attribute(out, code::AS4_AGGREGATOR, &value);
    }
}
