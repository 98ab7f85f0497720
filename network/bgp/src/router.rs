//! Router Advertisements and Solicitations (RFC 4861 4.1, 4.2): by them the two ends of a link without addresses of its own
//! learn where the other is. Of one nothing is taken but that it is sound and who sent it: this speaker is no host. Pure.
//! Read and sent by the daemon's `routers`.

use std::net::Ipv6Addr;
use std::time::Duration;

/// All routers of a link: who solicits asks them.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Everybody on a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The types of both messages.
pub const TYPES: [u8; 2] = [SOLICITATION, ADVERTISEMENT];
/// How often is advertised: FRR's interval on links of unnumbered neighbours.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// The least time between two (MIN_DELAY_BETWEEN_RAS, RFC 4861 10).
pub const LEAST_INTERVAL: Duration = Duration::from_secs(3);
/// For how long an advertisement holds: three intervals, as FRR's.
pub const LIFETIME: Duration = Duration::from_secs(30);

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Messages of next door come with this (RFC 4861 6.1).
const HOPS: u8 = 255;
/// What is told of the hop limit of hosts' packets (RFC 4861 6.3.2): the usual one.
const HOSTS_HOPS: u8 = 64;
/// Bytes before the options of each.
const HEADS: [usize; 2] = [8, 16];

/// What somebody on the link has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asks for advertisements.
    Solicitation,
    /// A router is there; whether for hosts, too, does not matter here.
    Advertisement,
}

/// A message that is valid (RFC 4861 6.1): `from` an address of the link, with all of its TTL left, and with sound options.
pub fn read(message: &[u8], from: Ipv6Addr, hops: Option<u8>) -> Option<Heard> {
    let (heard, head) = match *message.first()? {
        SOLICITATION => (Heard::Solicitation, HEADS[0]),
        ADVERTISEMENT => (Heard::Advertisement, HEADS[1]),
        _ => return None,
    };
    let code = *message.get(1)?;
    let near = hops == Some(HOPS) && from.is_unicast_link_local();
    (near && code == 0 && are_sound(message.get(head..)?)).then_some(heard)
}

/// Options: a type, a length of both in eight bytes, which is not 0.
fn are_sound(mut options: &[u8]) -> bool {
    while let [_, length, ..] = *options {
        match options.get(usize::from(length) * 8..) {
            Some(rest) if length > 0 => options = rest,
            _ => return false,
        }
    }
    options.is_empty()
}

/// An advertisement; the kernel adds the checksum. A lifetime of nothing is the last one (RFC 4861 6.2.5).
pub fn advertisement(lifetime: Duration) -> [u8; HEADS[1]] {
    let seconds = u16::try_from(lifetime.as_secs()).unwrap_or(u16::MAX).to_be_bytes();
    let mut message = [0; HEADS[1]];
    (message[0], message[4]) = (ADVERTISEMENT, HOSTS_HOPS);
    message[6..8].copy_from_slice(&seconds);
    message
}

/// A solicitation; the kernel adds the checksum.
pub fn solicitation() -> [u8; HEADS[0]] {
    let mut message = [0; HEADS[0]];
    message[0] = SOLICITATION;
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn with(options: &[u8]) -> Vec<u8> {
        [&advertisement(LIFETIME)[..], options].concat()
    }

    #[test]
    fn what_is_sent_is_read_and_says_how_long_it_holds() {
        assert_eq!(read(&advertisement(LIFETIME), FROM, Some(255)), Some(Heard::Advertisement));
        assert_eq!(read(&solicitation(), FROM, Some(255)), Some(Heard::Solicitation));
        assert_eq!(advertisement(LIFETIME)[6..8], [0, 30]);
        assert_eq!(advertisement(Duration::ZERO)[6..8], [0, 0]);
    }

    /// A router further away, or one that says who it is by an address of somewhere else, is not next door.
    #[test]
    fn what_has_crossed_a_router_or_is_of_no_link_is_nothing() {
        let sound = with(&[]);
        for hops in [None, Some(254), Some(64), Some(0)] {
            assert_eq!(read(&sound, FROM, hops), None, "{hops:?}");
        }
        for from in ["fd00::2", "::", "2001:db8::1", "ff02::1"] {
            assert_eq!(read(&sound, from.parse().expect("an address"), Some(255)), None, "{from}");
        }
    }

    #[test]
    fn what_is_cut_or_unsound_is_nothing() {
        let valid = |message: &[u8]| read(message, FROM, Some(255)).is_some();
        // FRR's: the hardware address of its end.
        let frr = with(&[1, 1, 2, 0, 0, 0, 0, 2]);
        assert!(valid(&frr));
        for length in 0..frr.len() {
            // Up to the options it is an advertisement without them.
            assert_eq!(valid(&frr[..length]), length == 16, "{length} bytes");
        }
        assert!(!valid(&with(&[1, 0, 0, 0, 0, 0, 0, 0])), "an option without length never ends");
        assert!(!valid(&with(&[1, 2, 0, 0, 0, 0, 0, 0])), "one that is longer than the message");
        let other = |at: usize, value: u8| {
            let mut message = frr.clone();
            message[at] = value;
            message
        };
        assert!(!valid(&other(0, 135)) && !valid(&other(1, 1)) && !valid(&[]));
    }
}
