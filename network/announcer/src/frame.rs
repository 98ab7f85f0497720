//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861) as far as whoever answers for an address needs them: frames
//! that ask and claim are read, answers and announcements are written. Every frame that is read is a stranger's. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux::netlink::Mac;

/// Bytes of a frame that are looked at: those with more have options that nobody sends here, and are passed over.
pub const LONGEST: usize = 512;

const ETHERNET: usize = 14;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const EVERYBODY: Mac = Mac([0xff; 6]);

/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_BODY: usize = 28;
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

const IPV6_HEAD: usize = 40;
const ICMPV6: u8 = 58;
/// Routers lower it: a message with less comes from another network.
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Type, code, checksum, flags, target.
const ND_HEAD: usize = 24;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
/// An advertisement is an answer, and takes the place of what was known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Somebody asks.
    pub question: Option<Question>,
    /// Somebody says whose an address is: his own, in most frames.
    pub claim: Option<Claim>,
}

/// Which hardware address has an address?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The address that is asked for.
    pub about: IpAddr,
    /// Who asks; unspecified: somebody who wants the address for himself, and looks first whether it is free.
    pub asker: IpAddr,
    /// The hardware address that the answer goes to.
    pub mac: Mac,
}

/// An address has this hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub addr: IpAddr,
    pub mac: Mac,
}

/// Reads a frame. None of what is not whole, not right, or about something else.
pub fn read(frame: &[u8]) -> Option<Heard> {
    let (head, body) = frame.split_at_checked(ETHERNET)?;
    let from = mac(head.get(6..12)?)?;
    match head.get(12..)?.try_into().ok()? {
        ETHERTYPE_ARP => read_arp(body),
        ETHERTYPE_IPV6 => read_ipv6(body, from),
        _ => None,
    }
}

/// One that a single station can have.
fn mac(bytes: &[u8]) -> Option<Mac> {
    let mac: [u8; 6] = bytes.try_into().ok()?;
    (mac[0] & 1 == 0 && mac != [0; 6]).then_some(Mac(mac))
}

fn read_arp(body: &[u8]) -> Option<Heard> {
    let body: &[u8; ARP_BODY] = body.first_chunk()?;
    let (head, rest) = body.split_at(6);
    let operation = rest[1];
    if *head != ARP_HEAD || rest[0] != 0 || ![ARP_REQUEST, ARP_REPLY].contains(&operation) {
        return None;
    }
    let mac = mac(&rest[2..8])?;
    let address = |at: usize| Ipv4Addr::new(rest[at], rest[at + 1], rest[at + 2], rest[at + 3]);
    let (sender, target) = (address(8), address(18));
    let asks = operation == ARP_REQUEST && sender != target && is_one(target);
    let question = asks.then_some(Question { about: target.into(), asker: sender.into(), mac });
    let claim = is_one(sender).then_some(Claim { addr: sender.into(), mac });
    (question.is_some() || claim.is_some()).then_some(Heard { question, claim })
}

/// An address that one host has.
fn is_one(addr: Ipv4Addr) -> bool {
    !(addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast())
}

fn read_ipv6(packet: &[u8], from: Mac) -> Option<Heard> {
    let (head, rest) = packet.split_at_checked(IPV6_HEAD)?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    if head[0] >> 4 != 6 || head[6] != ICMPV6 || head[7] != HOP_LIMIT {
        return None;
    }
    // Short frames are filled up to what Ethernet sends at least.
    let message = rest.get(..length)?;
    let (source, destination) = (address6(&head[8..24])?, address6(&head[24..40])?);
    if message.len() < ND_HEAD
        || message[1] != 0
        || source.is_multicast()
        || sum(source, destination, message) != 0xffff
    {
        return None;
    }
    let target = address6(&message[8..24])?;
    if target.is_multicast() || target.is_unspecified() {
        return None;
    }
    let options = Options::read(&message[ND_HEAD..])?;
    match message[0] {
        SOLICITATION => {
            let is_probe = source.is_unspecified();
            if is_probe && (options.source.is_some() || destination != solicited_node(target)) {
                return None;
            }
            let question = Question { about: target.into(), asker: source.into(), mac: options.source.unwrap_or(from) };
            Some(Heard { question: Some(question), claim: None })
        }
        ADVERTISEMENT => {
            let claim = Claim { addr: target.into(), mac: options.target.unwrap_or(from) };
            Some(Heard { question: None, claim: Some(claim) })
        }
        _ => None,
    }
}

fn address6(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

#[derive(Default)]
struct Options {
    source: Option<Mac>,
    target: Option<Mac>,
}

impl Options {
    /// None when one has no length or is cut: then all of the message counts for nothing.
    fn read(mut bytes: &[u8]) -> Option<Options> {
        let mut found = Options::default();
        while let Some((kind, rest)) = bytes.split_first() {
            let length = usize::from(*rest.first()?) * 8;
            if length == 0 {
                return None;
            }
            let option = bytes.get(..length)?;
            match *kind {
                OPTION_SOURCE => found.source = Some(mac(option.get(2..8)?)?),
                OPTION_TARGET => found.target = Some(mac(option.get(2..8)?)?),
                _ => {}
            }
            bytes = &bytes[length..];
        }
        Some(found)
    }
}

/// The group that whoever has an address hears.
pub fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    let low = [u16::from(a) | 0xff00, u16::from_be_bytes([b, c])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, low[0], low[1])
}

/// The answer to a question, by who has this hardware address. None when it is about no family that both are of.
pub fn answer(question: &Question, own: Mac) -> Option<Vec<u8>> {
    match (question.about, question.asker) {
        (IpAddr::V4(about), IpAddr::V4(asker)) => {
            Some(arp(ARP_REPLY, question.mac, (own, about), (question.mac, asker)))
        }
        (IpAddr::V6(about), IpAddr::V6(asker)) => Some(match asker.is_unspecified() {
            true => advertisement(OVERRIDE, about, own, ALL_NODES, group_mac(ALL_NODES)),
            false => advertisement(SOLICITED | OVERRIDE, about, own, asker, question.mac),
        }),
        _ => None,
    }
}

/// Tells everybody on the link whose an address is. Of IPv4 in both forms: some take only the one, some only the other.
pub fn announcements(addr: IpAddr, own: Mac) -> Vec<Vec<u8>> {
    match addr {
        IpAddr::V4(v4) => vec![
            arp(ARP_REQUEST, EVERYBODY, (own, v4), (Mac([0; 6]), v4)),
            arp(ARP_REPLY, EVERYBODY, (own, v4), (own, v4)),
        ],
        IpAddr::V6(v6) => vec![advertisement(OVERRIDE, v6, own, ALL_NODES, group_mac(ALL_NODES))],
    }
}

fn ethernet(to: Mac, from: Mac, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + IPV6_HEAD + ND_HEAD + 8);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&kind);
    frame
}

fn arp(operation: u8, to: Mac, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(to, sender.0, ETHERTYPE_ARP);
    frame.extend_from_slice(&ARP_HEAD);
    frame.extend_from_slice(&[0, operation]);
    for (mac, addr) in [sender, target] {
        frame.extend_from_slice(&mac.0);
        frame.extend_from_slice(&addr.octets());
    }
    frame
}

/// The hardware address of a group.
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

fn advertisement(flags: u8, about: Ipv6Addr, own: Mac, to: Ipv6Addr, to_mac: Mac) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&about.octets());
    message.extend_from_slice(&[OPTION_TARGET, 1]);
    message.extend_from_slice(&own.0);
    let checksum = !sum(about, to, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ethernet(to_mac, own, ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, HOP_LIMIT]);
    frame.extend_from_slice(&about.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(&message);
    frame
}

/// The ones' complement sum of an ICMPv6 message with its pseudo header: all ones where the checksum in it is right.
fn sum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2);
        pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
    };
    // Messages are far shorter than what would overflow it.
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(message);
    sum += message.len() as u32 + u32::from(ICMPV6);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Written down from a capture: who has 192.0.2.240? tell 192.0.2.7.
    const WHO_HAS: &[u8] = &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 192, 0,
        2, 7, 0, 0, 0, 0, 0, 0, 192, 0, 2, 240,
    ];

    /// A neighbour solicitation for fd00::f0 from fd00::7 as Linux sends it.
    fn solicitation() -> Vec<u8> {
        let (source, target): (Ipv6Addr, Ipv6Addr) = ("fd00::7".parse().unwrap(), "fd00::f0".parse().unwrap());
        let to = solicited_node(target);
        let mut message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &OTHER.0].concat();
        let checksum = !sum(source, to, &message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = ethernet(group_mac(to), OTHER, ETHERTYPE_IPV6);
        frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
        [&frame[..], &source.octets(), &to.octets(), &message].concat()
    }

    #[test]
    fn questions_are_answered_to_who_asks() {
        let heard = read(WHO_HAS).unwrap();
        let question = Question { about: ip("192.0.2.240"), asker: ip("192.0.2.7"), mac: OTHER };
        assert_eq!(heard.question.as_ref(), Some(&question));
        assert_eq!(heard.claim, Some(Claim { addr: ip("192.0.2.7"), mac: OTHER }), "who asks says who he is");
        let reply = answer(&question, OWN).unwrap();
        assert_eq!(reply[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(read(&reply).unwrap().claim, Some(Claim { addr: ip("192.0.2.240"), mac: OWN }));
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(reply[32..], [2, 0, 0, 0, 0, 2, 192, 0, 2, 7]);

        let heard = read(&solicitation()).unwrap();
        let question = Question { about: ip("fd00::f0"), asker: ip("fd00::7"), mac: OTHER };
        assert_eq!(heard, Heard { question: Some(question.clone()), claim: None });
        let reply = answer(&question, OWN).unwrap();
        assert_eq!(reply[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]);
        assert_eq!(
            read(&reply).unwrap().claim,
            Some(Claim { addr: ip("fd00::f0"), mac: OWN }),
            "its checksum is right"
        );
        assert_eq!(reply[58], SOLICITED | OVERRIDE);
        assert_eq!(answer(&Question { asker: ip("192.0.2.7"), ..question }, OWN), None);
    }

    #[test]
    fn who_looks_whether_an_address_is_free_hears_that_it_is_not() {
        let mut probe = WHO_HAS.to_vec();
        probe[28..32].fill(0);
        let heard = read(&probe).unwrap();
        assert_eq!(heard.claim, None, "he has it not yet");
        let reply = answer(&heard.question.unwrap(), OWN).unwrap();
        assert_eq!(read(&reply).unwrap().claim.map(|c| c.mac), Some(OWN));
        let question = Question { about: ip("fd00::f0"), asker: ip("::"), mac: OTHER };
        let reply = answer(&question, OWN).unwrap();
        assert_eq!((&reply[..6], reply[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], OVERRIDE), "to all nodes, unasked");
    }

    #[test]
    fn announcements_are_claims_and_no_questions() {
        for address in [ip("192.0.2.240"), ip("fd00::f0")] {
            for frame in announcements(address, OWN) {
                assert_eq!(
                    read(&frame),
                    Some(Heard { question: None, claim: Some(Claim { addr: address, mac: OWN }) })
                );
                assert!(frame[0] & 1 == 1, "to everybody");
            }
        }
        assert_eq!(solicited_node("2001:db8::12:3456".parse().unwrap()).to_string(), "ff02::1:ff12:3456");
    }

    /// Each byte another, each length shorter: what is wrong is nothing, and never a panic.
    #[test]
    fn cut_and_changed_frames_say_nothing_wrong() {
        for whole in [WHO_HAS.to_vec(), solicitation(), announcements(ip("fd00::f0"), OWN).remove(0)] {
            for length in 0..whole.len() {
                assert_eq!(read(&whole[..length]), None, "{length} bytes");
            }
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut changed = whole.clone();
                    changed[at] ^= 1 << bit;
                    let _ = read(&changed);
                }
            }
            let padded = [&whole[..], &[0; 18]].concat();
            assert_eq!(read(&padded), read(&whole), "Ethernet fills short frames up");
        }
        // From another network, with a wrong sum, an option without a length, for a group.
        for (at, value) in [(21, 254), (57, 0xaa), (79, 0), (62, 0xff)] {
            let mut wrong = solicitation();
            wrong[at] = value;
            assert_eq!(read(&wrong), None, "{at}");
        }
        let mut group = WHO_HAS.to_vec();
        group[22] = 0x01;
        assert_eq!(read(&group), None, "a group asks nothing");
    }
}
