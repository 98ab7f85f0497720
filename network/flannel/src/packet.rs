//! What happens to an IPv4 packet on its way through the backend udp: it is a router's way, so its time to live goes down
//! on either side, and what leads nowhere is told its sender (RFC 792). Pure, and without an allocation. Caller: the
//! packet loop.

use std::net::Ipv4Addr;

/// An IPv4 header without options.
const HEADER: usize = 20;
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

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        fn no_bytes_break_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if is_ipv4(&bytes) {
                let _ = unreachable(&bytes, Ipv4Addr::LOCALHOST, &mut [0; MESSAGE]);
                let _ = (decrement_ttl(&mut bytes), source(&bytes), destination(&bytes));
            }
        }
    }
}
