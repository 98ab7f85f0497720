//! From pods to other hosts: what was read from the link is cut into packets that fit, and packets of one size to one host
//! are gathered into messages. Pure, and without an allocation for a packet. Caller: the packet loop.
//!
//! ```text
//! buffer   [ header, packet ][ header, packet ]…                       as read, a slot each
//!          [ IP and TCP headers ][ … ]…                                of the packets that a long one was cut into
//! pieces   headers' and payloads' places in it, in the order in which they go
//! message  pieces a..b: datagrams of one size to one host
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

use linux::datagrams::{MOST_BYTES, MOST_MESSAGES, MOST_PIECES, MOST_SEGMENTS, Message};
use linux::tun::{Cut, HEADER, Offload};

use crate::packet::{self, Tcp};

/// Room for what is read at once: the link's header and the longest packet.
pub const SLOT: usize = 65_600;
/// Room for the headers of packets that a long one was cut into: IP's and TCP's longest.
const HEADERS: usize = 120;
/// Packets that are cut off before they are sent.
const MOST_CUT: usize = MOST_PIECES / 2;

/// Gathers what is to be sent.
pub struct Gatherer {
    buffer: Vec<u8>,
    /// Bytes of each slot.
    lengths: Vec<usize>,
    /// Where the headers begin.
    headers: usize,
    cut: usize,
    pieces: Vec<Range<usize>>,
    messages: Vec<Message>,
    /// The last message takes no more: its last datagram is shorter than the others.
    closed: bool,
    /// How far the slot that is being taken is cut: bytes of its payload.
    done: usize,
    /// A slot whose packet leads to no host.
    nowhere: Option<usize>,
}

impl Gatherer {
    pub fn new(slots: usize) -> Gatherer {
        let headers = slots * SLOT;
        Gatherer {
            buffer: vec![0; headers + MOST_CUT * HEADERS],
            lengths: vec![0; slots],
            headers,
            cut: 0,
            pieces: Vec::with_capacity(MOST_PIECES),
            messages: Vec::with_capacity(MOST_MESSAGES),
            closed: false,
            done: 0,
            nowhere: None,
        }
    }

    /// Where the next packet is read to, with its header.
    pub fn slot(&mut self, n: usize) -> &mut [u8] {
        &mut self.buffer[n * SLOT..(n + 1) * SLOT]
    }

    pub fn filled(&mut self, n: usize, length: usize) {
        self.lengths[n] = length.min(SLOT);
    }

    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    pub fn pieces(&self) -> &[Range<usize>] {
        &self.pieces
    }

    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// All is sent.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.messages.clear();
        (self.cut, self.closed) = (0, false);
    }

    /// The datagrams of a message, one by one; for ways that take no more.
    pub fn apart<'g>(&'g self, message: &'g Message) -> impl Iterator<Item = Vec<u8>> + use<'g> {
        let pieces = self.pieces[message.pieces.clone()].iter().map(|piece| &self.buffer[piece.clone()]);
        let bytes: Vec<u8> = pieces.flatten().copied().collect();
        let datagrams = bytes.chunks(message.segment.max(1)).map(<[u8]>::to_vec).collect::<Vec<_>>();
        datagrams.into_iter()
    }

    /// The packet of a slot that leads to no host, once.
    pub fn led_nowhere(&mut self, slot: usize) -> Option<&[u8]> {
        self.nowhere.take_if(|lost| *lost == slot)?;
        self.buffer.get(slot * SLOT + HEADER..slot * SLOT + self.lengths[slot])
    }

    /// Takes the packet of a slot. False when there is no room for all of it: it is to be called again once what was
    /// gathered is sent.
    pub fn take(&mut self, slot: usize, host_of: impl Fn(Ipv4Addr) -> Option<SocketAddrV4>) -> bool {
        if self.is_full() {
            return false;
        }
        let place = slot * SLOT..slot * SLOT + self.lengths[slot];
        let at = place.start + HEADER;
        let Some((header, packet)) = self.buffer[place].split_first_chunk_mut::<HEADER>() else { return true };
        if !packet::is_ipv4(packet) {
            return true;
        }
        let offload = Offload::parse(header);
        let Some(host) = host_of(packet::destination(packet)) else {
            self.nowhere = Some(slot);
            return true;
        };
        // Of a packet whose first part is sent, that was done.
        if self.done == 0 && !packet::decrement_ttl(packet) {
            return true;
        }
        match offload.cut {
            Cut::Whole => {
                if offload.needs_checksum {
                    packet::fill_in(packet, offload.checksum_start.into(), offload.checksum_offset.into());
                }
                let length = packet::length(packet);
                self.put(host, length, [at..at + length, 0..0]);
                true
            }
            Cut::TcpIpv4 => self.cut(at, host, usize::from(offload.segment)),
            Cut::Other(_) => true,
        }
    }

    /// Cuts a long TCP packet.
    fn cut(&mut self, at: usize, host: SocketAddrV4, segment: usize) -> bool {
        let length = packet::length(&self.buffer[at..]);
        let Some(tcp) = Tcp::of(&self.buffer[at..at + length]).filter(|_| segment > 0) else { return true };
        let (headers, payload) = (tcp.headers(), length - tcp.headers());
        loop {
            let bytes = (payload - self.done).min(segment);
            let (packets, room) = self.buffer.split_at_mut(self.headers);
            let room = &mut room[self.cut * HEADERS..][..headers];
            room.copy_from_slice(&packets[at..at + headers]);
            let from = at + headers + self.done;
            let part = ((self.done / segment) as u16, self.done);
            tcp.cut_headers(room, part, &packets[from..from + bytes], self.done + bytes == payload);
            let place = self.headers + self.cut * HEADERS;
            self.cut += 1;
            self.put(host, headers + bytes, [place..place + headers, from..from + bytes]);
            self.done += bytes;
            if self.done >= payload {
                self.done = 0;
                return true;
            }
            if self.is_full() {
                return false;
            }
        }
    }

    /// Whether another packet may find no room.
    fn is_full(&self) -> bool {
        self.pieces.len() + 2 > MOST_PIECES || self.messages.len() == MOST_MESSAGES || self.cut == MOST_CUT
    }

    fn joins(&self, host: SocketAddrV4, bytes: usize) -> bool {
        self.messages.last().is_some_and(|last| {
            !self.closed
                && last.to == host
                && bytes <= last.segment
                && last.bytes + bytes <= MOST_BYTES
                && last.bytes / last.segment < MOST_SEGMENTS
        })
    }

    /// Puts a datagram behind the others; an empty piece is none.
    fn put(&mut self, host: SocketAddrV4, bytes: usize, pieces: [Range<usize>; 2]) {
        let joins = self.joins(host, bytes);
        let first = self.pieces.len();
        self.pieces.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
        match self.messages.last_mut().filter(|_| joins) {
            Some(last) => {
                self.closed = bytes < last.segment;
                last.bytes += bytes;
                last.pieces.end = self.pieces.len();
            }
            None => {
                self.closed = false;
                self.messages.push(Message { to: host, segment: bytes, bytes, pieces: first..self.pieces.len() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::inbound::Joiner;
    use super::*;
    use crate::packet::tests::{tcp, valid};

    const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 8285);

    fn fill(gatherer: &mut Gatherer, slot: usize, offload: Offload, packet: &[u8]) {
        let room = gatherer.slot(slot);
        room[..HEADER].copy_from_slice(&offload.bytes());
        room[HEADER..HEADER + packet.len()].copy_from_slice(packet);
        gatherer.filled(slot, HEADER + packet.len());
    }

    /// What goes out for a slot, a datagram each, by message.
    fn sent(gatherer: &mut Gatherer, slot: usize) -> Vec<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        loop {
            let done = gatherer.take(slot, |_| Some(HOST));
            all.extend(gatherer.messages().iter().map(|message| gatherer.apart(message).collect::<Vec<_>>()));
            gatherer.clear();
            if done {
                return all;
            }
        }
    }

    fn long(segment: u16) -> Offload {
        Offload {
            needs_checksum: true,
            checksum_start: 20,
            checksum_offset: 16,
            cut: Cut::TcpIpv4,
            headers: 40,
            segment,
        }
    }

    #[test]
    fn a_long_packet_is_cut_into_good_ones_that_are_joined_again() {
        for (payload, segment) in [(10, 1000), (1000, 1000), (1001, 1000), (65_000, 1432), (60_000, 48)] {
            let mut gatherer = Gatherer::new(1);
            let whole = tcp(7, 0x18, payload);
            fill(&mut gatherer, 0, long(segment), &whole);
            let messages = sent(&mut gatherer, 0);
            let datagrams: Vec<_> = messages.iter().flatten().collect();
            assert_eq!(datagrams.len(), payload.div_ceil(usize::from(segment)), "{payload} of {segment}");
            assert!(datagrams.iter().all(|packet| valid(packet)), "{payload} of {segment}");
            for message in &messages {
                let bytes: usize = message.iter().map(Vec::len).sum();
                assert!(message.len() <= MOST_SEGMENTS && bytes <= MOST_BYTES);
                let (last, others) = message.split_last().unwrap();
                assert!(others.iter().all(|one| one.len() == message[0].len()) && last.len() <= message[0].len());
            }
            let flags = |packet: &[u8]| packet[33];
            let (last, others) = datagrams.split_last().unwrap();
            assert!(others.iter().all(|packet| flags(packet) == 0x10) && flags(last) == 0x18, "PSH is the last's");
            // As it comes in: all payload in order, and in far fewer packets.
            let (mut joiner, mut heard, mut writes) = (Joiner::default(), Vec::new(), 0);
            for message in &messages {
                let mut bytes = message.concat();
                joiner.join(
                    &mut bytes,
                    message[0].len(),
                    |_| true,
                    |pieces| {
                        writes += 1;
                        let all: Vec<u8> = pieces[1..].iter().flat_map(|piece| piece.iter().copied()).collect();
                        heard.extend_from_slice(&all[40..]);
                    },
                );
            }
            assert_eq!(heard, whole[40..], "{payload} of {segment}");
            assert!(writes <= messages.len() * 2, "{writes} of {}", messages.len());
        }
    }

    #[test]
    fn packets_of_one_size_to_one_host_are_one_message() {
        let mut gatherer = Gatherer::new(8);
        let sizes = [100, 100, 100, 60, 100, 200, 100];
        for (slot, size) in sizes.iter().enumerate() {
            fill(&mut gatherer, slot, Offload::default(), &tcp(slot as u32, 0x10, *size));
        }
        let other = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 3), 8285);
        for slot in 0..sizes.len() {
            assert!(gatherer.take(slot, |_| Some(if slot == 6 { other } else { HOST })));
        }
        let shape: Vec<_> = gatherer.messages().iter().map(|m| (m.segment - 40, m.pieces.len(), *m.to.ip())).collect();
        let (a, b) = (*HOST.ip(), *other.ip());
        // A shorter one ends a message, a longer one begins another.
        assert_eq!(shape, [(100, 4, a), (100, 1, a), (200, 1, a), (100, 1, b)]);
    }

    #[test]
    fn what_leads_nowhere_is_told_once_and_rubbish_is_passed_over() {
        let mut gatherer = Gatherer::new(1);
        let packet = tcp(7, 0x10, 10);
        fill(&mut gatherer, 0, Offload::default(), &packet);
        assert!(gatherer.take(0, |_| None) && gatherer.messages().is_empty());
        assert_eq!(gatherer.led_nowhere(0), Some(&packet[..]));
        assert_eq!(gatherer.led_nowhere(0), None);
        for length in [0, 3, HEADER, HEADER + 19] {
            gatherer.filled(0, length);
            assert!(gatherer.take(0, |_| Some(HOST)) && gatherer.messages().is_empty(), "{length}");
        }
        // A long packet that says nothing of its segments, or is no TCP.
        fill(&mut gatherer, 0, long(0), &packet);
        assert!(gatherer.take(0, |_| Some(HOST)) && gatherer.messages().is_empty());
        let mut udp = packet.clone();
        udp[9] = 17;
        fill(&mut gatherer, 0, long(5), &udp);
        assert!(gatherer.take(0, |_| Some(HOST)) && gatherer.messages().is_empty());
    }
}
