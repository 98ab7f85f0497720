//! The DNS message format: names, questions, records. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const HEADER: usize = 12;
/// The longest name on the wire.
const MOST_NAME_BYTES: usize = 255;
/// A name of 255 bytes has at most this many labels.
const MOST_LABELS: usize = 128;
/// Owner names of answers: a pointer to the question, which follows the header.
pub const TO_QUESTION: [u8; 2] = [0xc0, 0x0c];

/// Record types and classes that matter here.
pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const NAPTR: u16 = 35;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const AXFR: u16 = 252;
    pub const IXFR: u16 = 251;
    pub const ANY: u16 = 255;
    pub const IN: u16 = 1;
}

/// Response codes.
pub mod code {
    pub const NOERROR: u8 = 0;
    pub const FORMERR: u8 = 1;
    pub const SERVFAIL: u8 = 2;
    pub const NXDOMAIN: u8 = 3;
    pub const NOTIMP: u8 = 4;
    pub const REFUSED: u8 = 5;
}

/// Bits of the third and fourth byte of the header.
pub mod flag {
    pub const QR: u8 = 0x80;
    pub const AA: u8 = 0x04;
    pub const TC: u8 = 0x02;
    pub const RD: u8 = 0x01;
    pub const RA: u8 = 0x80;
    pub const CD: u8 = 0x10;
}

/// A name as it is on the wire: labels with their lengths, and the root's zero.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The name above all names.
    pub fn root() -> Self {
        Name(Box::new([0]))
    }

    /// From dotted text, in the case it has; none when a label is empty or too long.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(text.len() + 2);
        for label in text.trim_end_matches('.').split('.').filter(|_| !text.is_empty() && text != ".") {
            if label.is_empty() || label.len() > 63 {
                return None;
            }
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        (bytes.len() <= MOST_NAME_BYTES).then(|| Name(bytes.into()))
    }

    /// From a name without pointers, as it is on the wire.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        read_name(bytes, 0).filter(|name| name.0.len() == bytes.len())
    }

    /// These labels before this name; none when it gets too long.
    pub fn under(labels: &[&str], parent: &Name) -> Option<Self> {
        let mut bytes = Vec::with_capacity(64);
        for label in labels {
            if label.is_empty() || label.len() > 63 {
                return None;
            }
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend_from_slice(&parent.0);
        (bytes.len() <= MOST_NAME_BYTES).then(|| Name(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn to_lowercase(&self) -> Name {
        // Length bytes are below 64, so below the letters.
        Name(self.0.to_ascii_lowercase().into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        while let Some(len) = self.0.get(at).copied().filter(|len| *len > 0) {
            let label = self.0.get(at + 1..at + 1 + usize::from(len)).unwrap_or_default();
            write!(f, "{}.", String::from_utf8_lossy(label))?;
            at += 1 + usize::from(len);
        }
        if at == 0 { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a client's OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The longest UDP answer that it takes.
    pub size: u16,
    pub version: u8,
    /// It wants DNSSEC records.
    pub secure: bool,
}

/// A question, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub id: u16,
    /// The third and fourth byte of the header.
    pub flags: (u8, u8),
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
    /// Where the question section ends in the message.
    pub end: usize,
    lower: [u8; MOST_NAME_BYTES],
    len: u8,
    labels: [u8; MOST_LABELS],
    label_count: u8,
}

/// Why a message is not a question that can be answered; the code to say so with. None: not even that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswerable(pub Option<u8>);

impl Question {
    /// Reads a message.
    pub fn parse(message: &[u8]) -> Result<Self, Unanswerable> {
        if message.len() < HEADER || message[2] & flag::QR != 0 {
            return Err(Unanswerable(None)); // too short to answer, or an answer itself
        }
        let opcode = message[2] >> 3 & 0xf;
        if opcode != 0 {
            return Err(Unanswerable(Some(code::NOTIMP)));
        }
        let wrong = Unanswerable(Some(code::FORMERR));
        let counts: Vec4 = [0, 1, 2, 3].map(|i| usize::from(u16_at(message, 4 + 2 * i).unwrap_or(0)));
        if counts[0] != 1 || counts[1] != 0 || counts[2] != 0 {
            return Err(wrong);
        }
        let mut question = Question {
            id: u16_at(message, 0).ok_or(wrong)?,
            flags: (message[2], message[3]),
            kind: 0,
            class: 0,
            edns: None,
            end: 0,
            lower: [0; MOST_NAME_BYTES],
            len: 0,
            labels: [0; MOST_LABELS],
            label_count: 0,
        };
        let at = question.read_name(message).ok_or(wrong)?;
        question.kind = u16_at(message, at).ok_or(wrong)?;
        question.class = u16_at(message, at + 2).ok_or(wrong)?;
        question.end = at + 4;
        question.edns = find_opt(message, question.end, counts[3]).ok_or(wrong)?;
        Ok(question)
    }

    /// Reads the name in small letters and notes where labels start; the position after it comes back.
    fn read_name(&mut self, message: &[u8]) -> Option<usize> {
        let mut at = HEADER;
        let mut len = 0;
        loop {
            let label = usize::from(*message.get(at)?);
            if label > 63 || len + label + 1 > MOST_NAME_BYTES {
                return None; // a pointer has nowhere to point to here
            }
            if label == 0 {
                self.lower[len] = 0;
                self.len = (len + 1) as u8;
                return Some(at + 1);
            }
            self.labels[usize::from(self.label_count)] = len as u8;
            self.label_count += 1;
            self.lower[len] = label as u8;
            let from = message.get(at + 1..at + 1 + label)?;
            for (to, byte) in self.lower[len + 1..len + 1 + label].iter_mut().zip(from) {
                *to = byte.to_ascii_lowercase();
            }
            len += label + 1;
            at += label + 1;
            if usize::from(self.label_count) == MOST_LABELS {
                return None;
            }
        }
    }

    /// The name in small letters, as on the wire.
    pub fn name(&self) -> &[u8] {
        &self.lower[..usize::from(self.len)]
    }

    pub fn label_count(&self) -> usize {
        usize::from(self.label_count)
    }

    /// A label from the left, without its length.
    pub fn label(&self, i: usize) -> Option<&[u8]> {
        let at = usize::from(*self.labels[..self.label_count()].get(i)?);
        self.lower.get(at + 1..at + 1 + usize::from(self.lower[at]))
    }

    /// The name without this many labels on the left.
    pub fn parent(&self, labels: usize) -> Option<&[u8]> {
        if labels == self.label_count() {
            return self.name().get(self.name().len() - 1..);
        }
        let at = usize::from(*self.labels[..self.label_count()].get(labels)?);
        self.name().get(at..)
    }

    /// How many labels the name has before the zone, when it is in the zone.
    pub fn labels_before(&self, zone: &[u8], zone_labels: usize) -> Option<usize> {
        let before = self.label_count().checked_sub(zone_labels)?;
        (self.parent(before)? == zone).then_some(before)
    }

    /// The longest answer by UDP that the client takes.
    pub fn udp_limit(&self) -> usize {
        const CLASSIC: u16 = 512;
        usize::from(self.edns.map_or(CLASSIC, |e| e.size.max(CLASSIC)).min(MOST_UDP))
    }
}

type Vec4 = [usize; 4];

/// What we say that we take by UDP, and the most we send: fits a packet on every link there is.
pub const MOST_UDP: u16 = 1232;

/// Looks through the additional section for OPT. The outer none: malformed.
#[allow(clippy::option_option)]
fn find_opt(message: &[u8], mut at: usize, count: usize) -> Option<Option<Edns>> {
    let mut edns = None;
    for _ in 0..count {
        let owner = at;
        at = skip_name(message, at)?;
        let (kind, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
        let ttl = message.get(at + 4..at + 8)?;
        let len = usize::from(u16_at(message, at + 8)?);
        message.get(at + 10..at + 10 + len)?;
        if kind == kind::OPT {
            if edns.is_some() || message[owner] != 0 {
                return None;
            }
            edns = Some(Edns { size: class, version: ttl[1], secure: ttl[2] & 0x80 != 0 });
        }
        at += 10 + len;
    }
    Some(edns)
}

/// The position after a name.
pub fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            len if len & 0xc0 == 0xc0 => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// A name with its pointers followed, in the case it has.
pub fn read_name(message: &[u8], mut at: usize) -> Option<Name> {
    let mut bytes = Vec::with_capacity(32);
    let mut jumps = 0;
    loop {
        match *message.get(at)? {
            0 => {
                bytes.push(0);
                return (bytes.len() <= MOST_NAME_BYTES).then(|| Name(bytes.into()));
            }
            len @ 1..=63 => {
                bytes.extend_from_slice(message.get(at..at + 1 + usize::from(len))?);
                at += 1 + usize::from(len);
            }
            high if high & 0xc0 == 0xc0 => {
                // More than a name can have labels is a circle.
                jumps += 1;
                if jumps > MOST_LABELS {
                    return None;
                }
                at = usize::from(high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
            }
            _ => return None,
        }
        if bytes.len() > MOST_NAME_BYTES {
            return None;
        }
    }
}

/// A record of a received answer.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Where its owner name starts.
    pub owner: usize,
    pub kind: u16,
    pub ttl: u32,
    /// Where its time to live is.
    pub ttl_at: usize,
    /// Where its data is.
    pub data: (usize, usize),
}

/// Which of the three sections after the question a record is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

/// The records of a message with one question; none when it is malformed.
pub fn records(message: &[u8]) -> Option<Vec<(Section, Record)>> {
    let mut at = HEADER;
    for _ in 0..u16_at(message, 4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut all = Vec::new();
    for (section, offset) in [(Section::Answer, 6), (Section::Authority, 8), (Section::Additional, 10)] {
        for _ in 0..u16_at(message, offset)? {
            let owner = at;
            at = skip_name(message, at)?;
            let ttl = message.get(at + 4..at + 8)?;
            let len = usize::from(u16_at(message, at + 8)?);
            message.get(at + 10..at + 10 + len)?;
            all.push((
                section,
                Record {
                    owner,
                    kind: u16_at(message, at)?,
                    ttl: u32::from_be_bytes(ttl.try_into().ok()?),
                    ttl_at: at + 4,
                    data: (at + 10, at + 10 + len),
                },
            ));
            at += 10 + len;
        }
    }
    Some(all)
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

/// Appends a record: owner as given (a name or a pointer), class IN.
pub fn push_record(out: &mut Vec<u8>, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) {
    out.extend_from_slice(owner);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&kind::IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

/// Appends an A or AAAA record.
pub fn push_address(out: &mut Vec<u8>, owner: &[u8], ttl: u32, addr: IpAddr) {
    match addr {
        IpAddr::V4(v4) => push_record(out, owner, kind::A, ttl, &v4.octets()),
        IpAddr::V6(v6) => push_record(out, owner, kind::AAAA, ttl, &v6.octets()),
    }
}

/// The address that a name under in-addr.arpa or ip6.arpa stands for. The outer none: it is not such a name.
#[allow(clippy::option_option)]
pub fn reverse_address(question: &Question) -> Option<Option<IpAddr>> {
    const V4: &[u8] = b"\x07in-addr\x04arpa\0";
    const V6: &[u8] = b"\x03ip6\x04arpa\0";
    if let Some(before) = question.labels_before(V4, 2) {
        let mut octets = [0; 4];
        if before != 4 {
            return Some(None);
        }
        for (i, octet) in octets.iter_mut().rev().enumerate() {
            let text = question.label(i).and_then(|l| std::str::from_utf8(l).ok());
            match text.and_then(|t| t.parse().ok()) {
                Some(value) => *octet = value,
                None => return Some(None),
            }
        }
        return Some(Some(Ipv4Addr::from(octets).into()));
    }
    let before = question.labels_before(V6, 2)?;
    if before != 32 {
        return Some(None);
    }
    let mut bits = 0u128;
    for i in (0..32).rev() {
        let digit = question.label(i).filter(|l| l.len() == 1).and_then(|l| char::from(l[0]).to_digit(16));
        match digit {
            Some(digit) => bits = bits << 4 | u128::from(digit),
            None => return Some(None),
        }
    }
    Some(Some(Ipv6Addr::from(bits).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!tail.is_empty())];
        bytes.extend_from_slice(Name::parse(name).unwrap().as_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 1]);
        bytes.extend_from_slice(tail);
        bytes
    }

    #[test]
    fn questions_are_read_in_small_letters() {
        let message = question("Web.Default.svc.Cluster.local", &[0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0]);
        let q = Question::parse(&message).unwrap();
        assert_eq!(q.name(), Name::parse("web.default.svc.cluster.local").unwrap().as_bytes());
        assert_eq!((q.id, q.kind, q.class, q.label_count()), (0x1234, kind::A, kind::IN, 5));
        assert_eq!(q.edns, Some(Edns { size: 4096, version: 0, secure: true }));
        assert_eq!((q.label(1), q.label(5)), (Some(&b"default"[..]), None));
        let zone = Name::parse("cluster.local").unwrap();
        assert_eq!(q.labels_before(zone.as_bytes(), 2), Some(3));
        assert_eq!(q.labels_before(Name::parse("uster.local").unwrap().as_bytes(), 2), None);
        assert_eq!(q.udp_limit(), 1232);
    }

    #[test]
    fn cut_and_broken_messages_are_answered_with_an_error_or_not_at_all() {
        let message = question("a.example", &[]);
        for cut in 0..message.len() {
            assert!(Question::parse(&message[..cut]).is_err(), "{cut}");
        }
        let mut pointer = message.clone();
        pointer[12] = 0xc0;
        assert_eq!(Question::parse(&pointer).err(), Some(Unanswerable(Some(code::FORMERR))));
        let mut answer = message.clone();
        answer[2] |= flag::QR;
        assert_eq!(Question::parse(&answer).err(), Some(Unanswerable(None)));
        let mut update = message;
        update[2] |= 5 << 3;
        assert_eq!(Question::parse(&update).err(), Some(Unanswerable(Some(code::NOTIMP))));
    }

    #[test]
    fn reverse_names_are_addresses() {
        let address = |name: &str| reverse_address(&Question::parse(&question(name, &[])).unwrap());
        assert_eq!(address("9.0.43.10.in-addr.arpa"), Some(Some("10.43.0.9".parse().unwrap())));
        assert_eq!(address("43.10.in-addr.arpa"), Some(None));
        assert_eq!(address("x.0.43.10.in-addr.arpa"), Some(None));
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.d.f.ip6.arpa";
        assert_eq!(address(v6), Some(Some("fd43::1".parse().unwrap())));
        assert_eq!(address("example.org"), None);
    }

    #[test]
    fn circles_of_pointers_end() {
        let message = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'a', 0xc0, 12];
        assert_eq!(read_name(&message, 12), None);
    }
}
