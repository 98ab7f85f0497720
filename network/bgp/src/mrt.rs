//! Dumps for others' tools (MRT, RFC 6396): messages and states of sessions as they happen (BGP4MP), and the whole table
//! (TABLE_DUMP_V2; with path identifiers RFC 8050). Pure: records are appended to bytes. Called by whoever keeps dumps.

use std::net::{IpAddr, Ipv4Addr};

use crate::attribute::table::code;
use crate::attribute::write::{attribute, write as write_attributes};
use crate::attribute::{Attributes, NextHop};
use crate::family::{AFI_IPV4, AFI_IPV6, Family};
use crate::message::Coding;
use crate::message::nlri::{Nlri, write as write_nlri};
use crate::session::State;
use crate::wire::counted16;

const TABLE_DUMP_V2: u16 = 13;
const PEER_INDEX_TABLE: u16 = 1;
const BGP4MP: u16 = 16;
const STATE_CHANGE_AS4: u16 = 5;
const MESSAGE_AS4: u16 = 4;
/// A peer's entry has an AS number of four octets, and an address of IPv6.
const AS4: u8 = 2;
const IPV6: u8 = 1;

/// Between whom something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The neighbour's AS.
    pub peer_number: u32,
    /// Ours.
    pub local_number: u32,
    /// The neighbour's address.
    pub peer: IpAddr,
    /// Ours, of the same family.
    pub local: IpAddr,
}

/// A neighbour in the dump of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpPeer {
    /// His identifier.
    pub identifier: Ipv4Addr,
    /// His address.
    pub address: IpAddr,
    /// His AS.
    pub number: u32,
}

/// A path in the dump of a table.
#[derive(Clone, Copy, Debug)]
pub struct DumpPath<'a> {
    /// Which of the dump's neighbours told it.
    pub peer: u16,
    /// When it came, in seconds since 1970.
    pub since: u32,
    /// RFC 7911.
    pub path_id: u32,
    /// As it was told.
    pub set: &'a Attributes,
}

/// A message of a session, header included. `at` is in seconds since 1970.
pub fn message(at: u32, ends: &Ends, message: &[u8], out: &mut Vec<u8>) {
    record(at, BGP4MP, MESSAGE_AS4, out, |out| {
        write_ends(ends, out);
        out.extend_from_slice(message);
    });
}

/// A session's change of state.
pub fn state_change(at: u32, ends: &Ends, old: State, new: State, out: &mut Vec<u8>) {
    record(at, BGP4MP, STATE_CHANGE_AS4, out, |out| {
        write_ends(ends, out);
        // Counted from 1 there.
        [old, new].into_iter().for_each(|state| out.extend_from_slice(&(state as u16 + 1).to_be_bytes()));
    });
}

/// Who is in the dump of a table: its first record.
pub fn peers(at: u32, collector: Ipv4Addr, peers: &[DumpPeer], out: &mut Vec<u8>) {
    record(at, TABLE_DUMP_V2, PEER_INDEX_TABLE, out, |out| {
        out.extend_from_slice(&collector.octets());
        // The view has no name.
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&count(peers.len()));
        for peer in peers.iter().take(usize::from(u16::MAX)) {
            out.push(AS4 | if peer.address.is_ipv6() { IPV6 } else { 0 });
            out.extend_from_slice(&peer.identifier.octets());
            write_address(peer.address, out);
            out.extend_from_slice(&peer.number.to_be_bytes());
        }
    });
}

/// A prefix and its paths; `sequence` counts the prefixes of a dump.
pub fn prefix(at: u32, sequence: u32, prefix: meta::Prefix, paths: &[DumpPath<'_>], out: &mut Vec<u8>) {
    let family = Family::of(&prefix);
    let add_path = paths.iter().any(|path| path.path_id != 0);
    let subtype = match (family, add_path) {
        (Family::Ipv4Unicast, false) => 2,
        (Family::Ipv6Unicast, false) => 4,
        (Family::Ipv4Unicast, true) => 8,
        (Family::Ipv6Unicast, true) => 10,
    };
    record(at, TABLE_DUMP_V2, subtype, out, |out| {
        out.extend_from_slice(&sequence.to_be_bytes());
        write_nlri(&Nlri::from(prefix), false, out);
        out.extend_from_slice(&count(paths.len()));
        for path in paths.iter().take(usize::from(u16::MAX)) {
            out.extend_from_slice(&path.peer.to_be_bytes());
            out.extend_from_slice(&path.since.to_be_bytes());
            if add_path {
                out.extend_from_slice(&path.path_id.to_be_bytes());
            }
            counted16(out, |out| attributes(path.set, out));
        }
    });
}

/// As an UPDATE has them, with AS numbers of four octets; of MP_REACH_NLRI there is only the next hop (RFC 6396 4.3.4).
fn attributes(set: &Attributes, out: &mut Vec<u8>) {
    let coding = Coding { four_octet_as: true, ..Coding::default() };
    write_attributes(set, &coding, true, out);
    if let NextHop::V6 { global, link_local } = set.next_hop {
        let mut value = vec![if link_local.is_some() { 32 } else { 16 }];
        value.extend_from_slice(&global.octets());
        value.extend(link_local.iter().flat_map(|address| address.octets()));
        attribute(out, code::MP_REACH_NLRI, &value);
    }
}

/// Appends a record: header, and what `body` writes behind it.
fn record(at: u32, kind: u16, subtype: u16, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&at.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&subtype.to_be_bytes());
    let length = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let written = u32::try_from(out.len() - length - 4).unwrap_or(u32::MAX);
    out[length..length + 4].copy_from_slice(&written.to_be_bytes());
}

fn count(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes()
}

fn write_ends(ends: &Ends, out: &mut Vec<u8>) {
    out.extend_from_slice(&ends.peer_number.to_be_bytes());
    out.extend_from_slice(&ends.local_number.to_be_bytes());
    // No interface.
    out.extend_from_slice(&[0, 0]);
    let afi = if ends.peer.is_ipv6() { AFI_IPV6 } else { AFI_IPV4 };
    out.extend_from_slice(&afi.to_be_bytes());
    write_address(ends.peer, out);
    write_address(ends.local, out);
}

fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::wire::Reader;

    /// Type, subtype and body of each record.
    fn records(bytes: &[u8]) -> Vec<(u16, u16, Vec<u8>)> {
        let mut reader = Reader::new(bytes);
        let mut all = Vec::new();
        while !reader.is_empty() {
            assert_eq!(reader.u32(), Some(1_700_000_000));
            let (kind, subtype, length) = (reader.u16(), reader.u16(), reader.u32());
            let body = reader.take(length.expect("a length") as usize).expect("a body");
            all.push((kind.expect("a type"), subtype.expect("a subtype"), body.to_vec()));
        }
        all
    }

    const AT: u32 = 1_700_000_000;

    #[test]
    fn messages_and_states_have_their_ends_before_them() {
        let ends = Ends {
            peer_number: 70_000,
            local_number: 64512,
            peer: Ipv4Addr::new(10, 0, 0, 2).into(),
            local: Ipv4Addr::new(10, 0, 0, 1).into(),
        };
        let mut out = Vec::new();
        message(AT, &ends, &Message::Keepalive.write(), &mut out);
        state_change(AT, &ends, State::OpenConfirm, State::Established, &mut out);
        let [(16, 4, first), (16, 5, second)] = &records(&out)[..] else { panic!("{out:?}") };
        let before = [0, 1, 0x11, 0x70, 0, 0, 0xfc, 0, 0, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 1];
        assert_eq!((&first[..20], first.len()), (&before[..], 20 + 19));
        assert_eq!(second[20..], [0, 5, 0, 6]);
    }

    #[test]
    fn a_table_is_its_neighbours_and_then_its_prefixes() {
        let v6: IpAddr = "fd00::2".parse().expect("an address");
        let of = |address: IpAddr| DumpPeer { identifier: Ipv4Addr::new(1, 1, 1, 1), address, number: 64513 };
        let mut out = Vec::new();
        peers(AT, Ipv4Addr::new(9, 9, 9, 9), &[of(Ipv4Addr::LOCALHOST.into()), of(v6)], &mut out);
        let set = Attributes::local(NextHop::new(v6));
        let path = DumpPath { peer: 1, since: 5, path_id: 0, set: &set };
        let route = |text: &str| text.parse::<meta::Prefix>().expect("a prefix");
        prefix(AT, 0, route("fd00:7::/32"), &[path], &mut out);
        prefix(AT, 1, route("10.0.0.0/8"), &[DumpPath { path_id: 7, ..path }, path], &mut out);
        let all = records(&out);
        let kinds: Vec<(u16, u16)> = all.iter().map(|(kind, subtype, _)| (*kind, *subtype)).collect();
        assert_eq!(kinds, [(13, 1), (13, 4), (13, 8)]);
        assert_eq!(all[0].2.len(), 4 + 2 + 2 + (1 + 4 + 4 + 4) + (1 + 4 + 16 + 4));
        let body = &all[1].2;
        assert_eq!(body[..11], [0, 0, 0, 0, 32, 0xfd, 0, 0, 7, 0, 1]);
        // ORIGIN, an empty AS_PATH, and the next hop alone.
        assert_eq!(body[11..17], [0, 1, 0, 0, 0, 5]);
        assert_eq!(body[17..19], [0, 4 + 3 + 3 + 17]);
        assert_eq!(body[19 + 7..19 + 7 + 4], [0x80, 14, 17, 16]);
    }
}
