//! What happens to an IPv4 packet on its way through the backend udp: it is a router's way, so its time to live goes down
//! on either side, and what leads nowhere is told its sender (RFC 792). A long TCP packet of the kernel's is cut, and packets
//! are joined into such a one: [`Tcp`] knows which fields count up. Pure, and without an allocation. Caller: the packet loop.

use std::net::Ipv4Addr;

/// An IPv4 header without options.
pub const HEADER: usize = 20;
/// The longest header, and what a message about a packet quotes behind it (RFC 792).
const LONGEST_HEADER: usize = 60;
const QUOTED: usize = 8;
const ICMP_HEADER: usize = 8;
/// Room for the longest message of [`unreachable`].
pub const MESSAGE: usize = HEADER + ICMP_HEADER + LONGEST_HEADER + QUOTED;

const ICMP: u8 = 1;
const DESTINATION_UNREACHABLE: u8 = 3;
/// Upstream's: the message goes to a pod of this host.
const TIME_TO_LIVE: u8 = 8;

/// A packet that says of itself what it is: the parts that count are there. None for whatever else came in, other
/// versions of IP among it.
pub fn is_ipv4(packet: &[u8]) -> bool {
    let Some(first) = packet.first().filter(|_| packet.len() >= HEADER) else { return false };
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    first >> 4 == 4 && (HEADER..=length).contains(&header_len(packet)) && length <= packet.len()
}

/// As the packet says it, of one that [`is_ipv4`].
pub fn length(packet: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([packet[2], packet[3]]))
}

fn header_len(packet: &[u8]) -> usize {
    usize::from(packet[0] & 15) * 4
}

/// Of a packet that [`is_ipv4`].
pub fn source(packet: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15])
}

/// Of a packet that [`is_ipv4`].
pub fn destination(packet: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19])
}

/// Takes one off the time to live of a packet that [`is_ipv4`], and mends the checksum by as much (RFC 1624). False when
/// there is none left: it goes no further.
pub fn decrement_ttl(packet: &mut [u8]) -> bool {
    if packet[8] <= 1 {
        return false;
    }
    packet[8] -= 1;
    // The word of which it is the upper half has become 0x100 less, so its complement's sum is as much more.
    let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]])) + 0x100;
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(sum as u16).to_be_bytes());
    true
}

/// Writes to its sender that no network holds a packet's destination. None where nobody must be told: messages of errors
/// cause none, a later fragment is told by the first, and a group is no sender.
pub fn unreachable<'m>(packet: &[u8], from: Ipv4Addr, message: &'m mut [u8; MESSAGE]) -> Option<&'m [u8]> {
    let fragment_offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
    let to = source(packet);
    if packet[9] == ICMP || fragment_offset != 0 || to.is_multicast() || to.is_broadcast() || to.is_unspecified() {
        return None;
    }
    let quote = packet.get(..header_len(packet) + QUOTED)?;
    let length = HEADER + ICMP_HEADER + quote.len();
    let message = &mut message[..length];
    message.fill(0);
    message[0] = 0x45;
    message[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    message[8] = TIME_TO_LIVE;
    message[9] = ICMP;
    message[12..16].copy_from_slice(&from.octets());
    message[16..20].copy_from_slice(&to.octets());
    message[HEADER] = DESTINATION_UNREACHABLE;
    message[HEADER + ICMP_HEADER..].copy_from_slice(quote);
    let sum = checksum(&message[..HEADER]);
    message[10..12].copy_from_slice(&sum.to_be_bytes());
    let sum = checksum(&message[HEADER..]);
    message[HEADER + 2..HEADER + 4].copy_from_slice(&sum.to_be_bytes());
    Some(message)
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// Sums words in the machine's own order: what is folded from it is right in that order, too (RFC 1071, 2).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_ne_bytes(last))
}

/// Carries added until there are none; in network order.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

/// The sum of TCP's pseudo header: addresses, protocol, length.
fn pseudo(packet: &[u8], length: usize) -> u64 {
    let [high, low] = (length as u16).to_be_bytes();
    sum(&packet[12..20]) + sum(&[0, TCP, high, low])
}

/// Fills in the checksum that the kernel has left to the link's driver: from `start` on, at `offset` behind that.
pub fn fill_in(packet: &mut [u8], start: usize, offset: usize) {
    let length = length(packet);
    if start + offset + 2 > length {
        return;
    }
    let sum = checksum(&packet[start..length]);
    // UDP's zero says that there is none.
    let sum = if sum == 0 { 0xffff } else { sum };
    packet[start + offset..][..2].copy_from_slice(&sum.to_be_bytes());
}

const TCP: u8 = 6;
/// TCP's header without options, and the places of its fields.
const TCP_HEADER: usize = 20;
const SEQUENCE: usize = HEADER + 4;
const DATA_OFFSET: usize = HEADER + 12;
const FLAGS: usize = HEADER + 13;
const WINDOW: usize = HEADER + 14;
/// From the beginning of the header.
pub const TCP_CHECKSUM: usize = 16;
const CHECKSUM: usize = HEADER + TCP_CHECKSUM;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// A TCP packet of IPv4 without options of IP that is no fragment.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    headers: usize,
    length: usize,
    sequence: u32,
    flags: u8,
}

impl Tcp {
    /// Of a packet that [`is_ipv4`].
    pub fn of(packet: &[u8]) -> Option<Tcp> {
        let length = length(packet);
        // More fragments, or a place in one.
        let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
        if packet[9] != TCP || header_len(packet) != HEADER || fragment || length < HEADER + TCP_HEADER {
            return None;
        }
        let headers = HEADER + usize::from(packet[DATA_OFFSET] >> 4) * 4;
        let sequence = u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]]);
        let flags = packet[FLAGS];
        (HEADER + TCP_HEADER..=length).contains(&headers).then_some(Tcp { headers, length, sequence, flags })
    }

    /// Bytes of both headers.
    pub fn headers(&self) -> usize {
        self.headers
    }

    /// Whether it may stand in a long one: it has a payload, and says nothing out of turn.
    pub fn may_be_joined(&self) -> bool {
        self.length > self.headers && self.flags & !(PSH | FIN) == ACK
    }

    /// Whether nothing may be joined behind it.
    pub fn ends_something(&self) -> bool {
        self.flags & (PSH | FIN) != 0
    }

    /// A long one says what its last says.
    pub fn takes_ends_of(&mut self, last: &Tcp) {
        self.flags |= last.flags & (PSH | FIN);
    }

    /// Whether `next` comes after `payload` bytes from this one on: the headers are equal but for what counts up.
    pub fn goes_on(&self, packet: &[u8], next: &Tcp, next_packet: &[u8], payload: usize) -> bool {
        let (a, b) = (packet, next_packet);
        // IP: version, service; then, past length and number, fragments, time to live, protocol; then, past the checksum,
        // addresses. TCP: ports; acknowledgement and data offset; window; then, past the checksum, the rest.
        next.headers == self.headers
            && next.sequence == self.sequence.wrapping_add(payload as u32)
            && a[..2] == b[..2]
            && a[6..10] == b[6..10]
            && a[12..SEQUENCE] == b[12..SEQUENCE]
            && a[SEQUENCE + 4..FLAGS] == b[SEQUENCE + 4..FLAGS]
            && a[WINDOW..CHECKSUM] == b[WINDOW..CHECKSUM]
            && a[CHECKSUM + 2..self.headers] == b[CHECKSUM + 2..self.headers]
    }

    /// Makes headers of a long packet those of a part of it, which begins behind `done` bytes of its payload.
    pub fn cut_headers(&self, headers: &mut [u8], (number, done): (u16, usize), payload: &[u8], is_last: bool) {
        let length = headers.len() + payload.len();
        headers[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        let id = u16::from_be_bytes([headers[4], headers[5]]).wrapping_add(number);
        headers[4..6].copy_from_slice(&id.to_be_bytes());
        self.sum_ip(headers);
        headers[SEQUENCE..SEQUENCE + 4].copy_from_slice(&self.sequence.wrapping_add(done as u32).to_be_bytes());
        if !is_last {
            headers[FLAGS] &= !(FIN | PSH);
        }
        if done > 0 {
            headers[FLAGS] &= !CWR;
        }
        headers[CHECKSUM..CHECKSUM + 2].fill(0);
        let sum = pseudo(headers, length - HEADER) + sum(&headers[HEADER..]) + sum(payload);
        headers[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
    }

    /// Makes this the headers of a long packet, whose checksum is left to the kernel.
    pub fn make_long(&self, packet: &mut [u8], length: usize) {
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        self.sum_ip(packet);
        packet[FLAGS] = self.flags;
        let sum = fold(pseudo(packet, length - HEADER));
        packet[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn sum_ip(&self, packet: &mut [u8]) {
        packet[10..12].fill(0);
        let sum = checksum(&packet[..HEADER]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Whether the checksum of a [`Tcp`] packet is right.
pub fn tcp_is_whole(packet: &[u8]) -> bool {
    let segment = &packet[HEADER..length(packet)];
    fold(pseudo(packet, segment.len()) + sum(segment)) == 0xffff
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TCP packet between two pods with right checksums.
    pub fn tcp(sequence: u32, flags: u8, payload: usize) -> Vec<u8> {
        let length = (40 + payload) as u16;
        let mut bytes = vec![0x45, 0, (length >> 8) as u8, length as u8, 0, 1, 0x40, 0, 64, TCP, 0, 0];
        bytes.extend([10, 5, 1, 7, 10, 5, 2, 9]);
        bytes.extend([0x1f, 0x90, 0x00, 0x50]);
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        bytes.extend((0..payload).map(|n| (n % 251) as u8));
        let sum = checksum(&bytes[..HEADER]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let sum = pseudo(&bytes, 20 + payload) + sum_of(&bytes[HEADER..]);
        bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
        bytes
    }

    fn sum_of(bytes: &[u8]) -> u64 {
        sum(bytes)
    }

    /// Both checksums are right.
    pub fn valid(packet: &[u8]) -> bool {
        is_ipv4(packet) && checksum(&packet[..HEADER]) == 0 && tcp_is_whole(packet)
    }

    /// As the RFC says it, a word at a time.
    fn slowly(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn a_checksum_that_is_left_to_the_driver_is_filled_in() {
        let good = tcp(7, 0x18, 33);
        let mut left = good.clone();
        let half = fold(pseudo(&left, 53));
        left[CHECKSUM..CHECKSUM + 2].copy_from_slice(&half.to_be_bytes());
        assert!(!valid(&left));
        fill_in(&mut left, HEADER, TCP_CHECKSUM);
        assert_eq!(left, good);
        // What lies outside of the packet is left alone.
        for (start, offset) in [(72, 0), (20, 60), (65_535, 65_535)] {
            fill_in(&mut left, start, offset);
        }
        assert_eq!(left, good);
    }

    #[test]
    fn what_is_no_plain_tcp_is_none() {
        let good = tcp(7, 0x10, 10);
        assert_eq!(Tcp::of(&good).map(|tcp| tcp.headers()), Some(40));
        for (at, byte) in [(9, 17), (6, 0x20), (7, 1), (0, 0x46), (32, 0x40), (32, 0xf0)] {
            let mut other = good.clone();
            other[at] = byte;
            assert!(Tcp::of(&other).is_none(), "{at} {byte:x}");
        }
    }

    /// A UDP packet between two pods with a right checksum.
    fn packet(ttl: u8, id: u16) -> Vec<u8> {
        let mut bytes =
            vec![0x45, 0, 0, 36, (id >> 8) as u8, id as u8, 0x40, 0, ttl, 17, 0, 0, 10, 5, 1, 7, 10, 5, 2, 9];
        bytes.extend((0..16).collect::<Vec<u8>>());
        let sum = checksum(&bytes[..HEADER]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn the_sender_is_told_what_leads_nowhere() {
        let offender = packet(64, 1);
        let mut room = [0xff; MESSAGE];
        let message = unreachable(&offender, Ipv4Addr::new(10, 5, 1, 0), &mut room).unwrap();
        assert!(is_ipv4(message));
        assert_eq!((source(message), destination(message)), (Ipv4Addr::new(10, 5, 1, 0), Ipv4Addr::new(10, 5, 1, 7)));
        assert_eq!((message[8], message[9], message[20], message[21]), (8, 1, 3, 0));
        assert_eq!(message[28..], offender[..28], "the header and eight bytes");
        assert_eq!((checksum(&message[..20]), checksum(&message[20..])), (0, 0));
    }

    #[test]
    fn nobody_is_told_of_messages_fragments_and_cut_packets() {
        let mut room = [0; MESSAGE];
        let mut says = |change: fn(&mut Vec<u8>)| {
            let mut offender = packet(64, 1);
            change(&mut offender);
            unreachable(&offender, Ipv4Addr::new(10, 5, 1, 0), &mut room).is_some()
        };
        assert!(says(|_| ()));
        assert!(!says(|p| p[9] = 1));
        assert!(!says(|p| p[7] = 1));
        assert!(says(|p| p[6] = 0x20), "the first fragment");
        assert!(!says(|p| p[12] = 224));
        assert!(!says(|p| p.truncate(27)));
    }

    #[test]
    fn what_is_no_packet_is_none() {
        let good = packet(64, 1);
        assert!(is_ipv4(&good));
        for cut in 0..36 {
            assert!(!is_ipv4(&good[..cut]), "{cut}");
        }
        for (at, byte) in [(0, 0x65), (0, 0x44), (0, 0x4f), (3, 37), (2, 0xff)] {
            let mut wrong = good.clone();
            wrong[at] = byte;
            assert!(!is_ipv4(&wrong), "{at} {byte:x}");
        }
    }

    proptest! {
        #[test]
        fn a_packet_that_goes_on_has_a_right_checksum(ttl in any::<u8>(), id in any::<u16>()) {
            let mut bytes = packet(ttl, id);
            let goes_on = decrement_ttl(&mut bytes);
            prop_assert_eq!(goes_on, ttl > 1);
            if goes_on {
                prop_assert_eq!((bytes[8], checksum(&bytes[..HEADER])), (ttl - 1, 0));
            }
        }

        #[test]
        fn sums_are_the_rfcs(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            prop_assert_eq!(checksum(&bytes), slowly(&bytes));
        }

        #[test]
        fn no_bytes_break_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if is_ipv4(&bytes) {
                let _ = unreachable(&bytes, Ipv4Addr::LOCALHOST, &mut [0; MESSAGE]);
                let _ = (decrement_ttl(&mut bytes), source(&bytes), destination(&bytes));
            }
        }
    }
}
