//! Messages of every type, sound and not, by chance from a seed: the same seed makes the same ones.

use bgp::attribute::table::{ATTRIBUTES, Length, code, flag};
use bgp::family::Family;
use bgp::message::capability::Capability;
use bgp::message::notification::Notification;
use bgp::message::open::Open;
use bgp::message::refresh::{RouteRefresh, Subtype};
use bgp::message::{HEADER, MAX_MESSAGE, Message};

use crate::world::open;

/// Values that are at the edge of something.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 24, 32, 33];

/// Chance (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// In so many of a hundred.
    pub fn percent(&mut self, of_a_hundred: usize) -> bool {
        self.below(100) < of_a_hundred
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())]
    }
}

/// The OPEN of a hostile peer: both families, refresh with and without ends.
pub fn hello(number: u32) -> Open {
    let more = [
        Capability::Multiprotocol(Family::Ipv6Unicast.wire()),
        Capability::RouteRefresh,
        Capability::EnhancedRouteRefresh,
    ];
    open(number, 90, &more)
}

/// A message for a session that is there: an UPDATE mostly, for that is what most can be wrong with.
pub fn any(chance: &mut Chance, number: u32) -> Vec<u8> {
    let mut bytes = match chance.below(200) {
        0..160 => update(chance, number),
        160..180 => Message::Keepalive.write(),
        180..198 => {
            let subtype = chance.of(&[Subtype::Request, Subtype::Begin, Subtype::End]);
            let family = chance.of(&Family::ALL).wire();
            Message::RouteRefresh(RouteRefresh { family, subtype }).write()
        }
        198 => Message::Notification(Notification::new(chance.byte() % 9, chance.byte() % 12, Vec::new())).write(),
        _ => Message::Open(hello(number)).write(),
    };
    // Most of what is wrong is in attributes, and lived with; this mostly ends the session.
    if chance.percent(8) {
        mutate(chance, &mut bytes);
    }
    bytes
}

/// Changes a message anywhere behind its header, in the end mostly with the right length in it; seldom the header.
pub fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>) {
    for _ in 0..=chance.below(3) {
        let body = bytes.len() - HEADER;
        let at = HEADER + chance.below(body);
        match chance.below(6) {
            0 | 1 if body > 0 => bytes[at] ^= 1 << chance.below(8),
            2 if body > 0 => bytes[at] = chance.of(&EDGES),
            3 if body > 0 => {
                bytes.remove(at);
            }
            4 => bytes.insert(at, chance.byte()),
            5 if body > 0 => bytes.truncate(at),
            _ => {}
        }
    }
    if !chance.percent(4) {
        with_length(bytes);
    }
    if chance.percent(2) {
        let at = chance.below(HEADER);
        bytes[at] = chance.byte();
    }
}

fn with_length(bytes: &mut [u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
}

/// An UPDATE of attributes that are each sound, or wrong in one of the ways that RFC 7606 names.
fn update(chance: &mut Chance, number: u32) -> Vec<u8> {
    let withdrawn = if chance.percent(15) { prefixes(chance, 4) } else { Vec::new() };
    let mut attributes = Vec::new();
    for code in [code::ORIGIN, code::AS_PATH, code::NEXT_HOP] {
        if !chance.percent(2) {
            attributes.push(attribute(chance, code, number));
        }
    }
    for _ in 0..chance.below(4) {
        let code = chance.of(ATTRIBUTES).code;
        attributes.push(attribute(chance, code, number));
    }
    if chance.percent(4) {
        // Nobody knows it.
        let (flags, code, length) = (chance.of(&[0x80, 0xc0, 0xe0, 0x40]), 100 + chance.byte() % 100, chance.below(40));
        let value = chance.bytes(length);
        attributes.push(framed(flags, code, &value));
    }
    let attributes = attributes.concat();
    let nlri = if chance.percent(80) { prefixes(chance, 4) } else { Vec::new() };
    let length = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
    let mut bytes = [&[0xff; 16][..], &[0, 0, 2], &length(&withdrawn), &withdrawn].concat();
    bytes.extend([&length(&attributes)[..], &attributes, &nlri].concat());
    bytes.truncate(MAX_MESSAGE);
    with_length(&mut bytes);
    bytes
}

fn framed(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    match u8::try_from(value.len()) {
        Ok(length) if flags & flag::EXTENDED_LENGTH == 0 => [&[flags, code, length], value].concat(),
        _ => [&[flags | flag::EXTENDED_LENGTH, code][..], &(value.len() as u16).to_be_bytes(), value].concat(),
    }
}

fn attribute(chance: &mut Chance, code: u8, number: u32) -> Vec<u8> {
    let Some(row) = bgp::attribute::table::find(code) else { return Vec::new() };
    let mut value = match code {
        code::ORIGIN => vec![chance.byte() % 3],
        code::AS_PATH | code::AS4_PATH => path(chance, number),
        code::NEXT_HOP => vec![127, 99, 0, chance.byte().max(1)],
        code::AGGREGATOR => [&[0, 0, 0xfc, 1][..], &[10, 0, 0, 1]].concat(),
        code::MP_REACH_NLRI => {
            let next_hop = [&[0xfd][..], &chance.bytes(15)].concat();
            [&[0, 2, 1, 16][..], &next_hop, &[0], &prefixes(chance, 16)].concat()
        }
        code::MP_UNREACH_NLRI => [&[0, 2, 1][..], &prefixes(chance, 16)].concat(),
        _ => match row.length {
            Length::Exactly(length) => chance.bytes(length),
            Length::Multiple(of) => {
                let count = 1 + chance.below(20);
                chance.bytes(of * count)
            }
            _ => Vec::new(),
        },
    };
    let mut flags = row.category.flags();
    if chance.percent(6) {
        match chance.below(4) {
            0 => value.truncate(chance.below(value.len())),
            1 => value.push(chance.byte()),
            2 => flags ^= 1 << chance.below(8),
            _ => {
                let length = chance.below(300);
                value = chance.bytes(length);
            }
        }
    }
    framed(flags, code, &value)
}

fn path(chance: &mut Chance, number: u32) -> Vec<u8> {
    let mut bytes = vec![2, 0];
    let count = 1 + chance.below(6);
    for at in 0..count {
        let one = if at == 0 { number } else { 1 + chance.below(70_000) as u32 };
        bytes.extend(one.to_be_bytes());
    }
    bytes[1] = count as u8;
    if chance.percent(10) {
        bytes.extend([1, 1, 0, 0, 0, 7]);
    }
    bytes
}

/// Some prefixes of few that there are, so that many are told again; seldom what is none.
fn prefixes(chance: &mut Chance, octets: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=chance.below(5) {
        let first = if octets == 4 { 10 } else { 0xfd };
        bytes.extend([24, first, chance.byte() % 4, chance.byte()]);
    }
    if chance.below(1000) == 0 {
        bytes.push(chance.of(&[33, 129, 200]));
    }
    bytes
}
