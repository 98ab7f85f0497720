//! What words mean: zones, durations, addresses, types, expressions. Pure.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use meta::Prefix;
use regex::{Regex, RegexBuilder};

use super::blocks::Directive;
use super::words::{Word, Wrong};
use crate::wire::{Name, kind};

/// Upstream's own bound of an expression's text.
const MOST_EXPRESSION: usize = 10_000;
/// What one may take when it is compiled: names are short, so this is far above any that is meant.
const MOST_COMPILED: usize = 128 << 10;
/// A list of zones after a plugin.
const MOST_ZONES: usize = 1000;

/// In which names what a plugin does not know goes on to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fall(Option<Vec<Name>>);

impl Fall {
    /// `fallthrough` with its zones; without them, for every name.
    pub fn parse(words: &[Word]) -> Result<Fall, Wrong> {
        match words.is_empty() {
            true => Ok(Fall(Some(vec![root()]))),
            false => Ok(Fall(Some(zones(words)?))),
        }
    }

    /// For names of these zones.
    pub fn of(zones: Vec<Name>) -> Fall {
        Fall(Some(zones))
    }

    /// Whether it does for this name, as it is on the wire.
    pub fn through(&self, name: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|zones| zones.iter().any(|zone| is_below(name, zone.as_bytes())))
    }

    pub fn any(&self) -> bool {
        self.0.is_some()
    }
}

/// Whether a name on the wire is in a zone, both in small letters.
pub fn is_below(name: &[u8], zone: &[u8]) -> bool {
    let mut at = 0;
    while let Some(len) = name.get(at) {
        if name.len() - at <= zone.len() {
            return &name[at..] == zone;
        }
        if *len == 0 {
            return false;
        }
        at += 1 + usize::from(*len);
    }
    false
}

pub fn root() -> Name {
    Name::root()
}

/// Zones by name or by range of addresses.
pub fn zones(words: &[Word]) -> Result<Vec<Name>, Wrong> {
    let mut all = Vec::new();
    for word in words {
        all.extend(zone(word, &word.text)?);
        if all.len() > MOST_ZONES {
            return Err(word.wrong(format!("more than {MOST_ZONES} zones")));
        }
    }
    Ok(all)
}

/// A zone, or the reverse zones of a range like `10.0.0.0/8`.
pub fn zone(word: &Word, text: &str) -> Result<Vec<Name>, Wrong> {
    if text.contains('/') {
        let range = Prefix::from_str(text).map_err(|_| word.wrong("no range of addresses like 10.0.0.0/8"))?;
        return reverse_zones(range).ok_or_else(|| word.wrong("no range of addresses like 10.0.0.0/8"));
    }
    name(word, text).map(|name| vec![name])
}

/// A name in small letters.
pub fn name(word: &Word, text: &str) -> Result<Name, Wrong> {
    let fine = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let name = Name::parse(text).filter(|_| fine).ok_or_else(|| word.wrong("no name of a zone like example.org"))?;
    Ok(name.to_lowercase())
}

/// The zones under in-addr.arpa or ip6.arpa that together are a range.
fn reverse_zones(range: Prefix) -> Option<Vec<Name>> {
    let (address, length) = (range.network().addr, u32::from(range.len));
    let step = if address.is_ipv4() { 8 } else { 4 };
    let whole = length.div_ceil(step);
    // At most 128: a range that ends within a label is all that this label can be.
    let count = 1u32 << (whole * step - length);
    let digits: Vec<u32> = match address {
        IpAddr::V4(v4) => v4.octets().iter().map(|o| u32::from(*o)).collect(),
        IpAddr::V6(v6) => v6.octets().iter().flat_map(|o| [u32::from(o >> 4), u32::from(o & 15)]).collect(),
    };
    let suffix = if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
    let kept = &digits[..whole as usize];
    (0..count)
        .map(|i| {
            let mut text = String::new();
            for (at, digit) in kept.iter().enumerate().rev() {
                let digit = if at + 1 == kept.len() { digit + i } else { *digit };
                text.push_str(&if address.is_ipv4() { format!("{digit}.") } else { format!("{digit:x}.") });
            }
            Name::parse(&format!("{text}{suffix}"))
        })
        .collect()
}

/// The one word that must follow.
pub fn one<'w>(at: &Word, words: &'w [Word]) -> Result<&'w Word, Wrong> {
    match words {
        [word] => Ok(word),
        [] => Err(at.wrong("a value is wanted after it")),
        [_, word, ..] => Err(word.wrong(format!("{} takes one value", at.text))),
    }
}

/// Nothing may follow.
pub fn none(at: &Word, words: &[Word]) -> Result<(), Wrong> {
    words.first().map_or(Ok(()), |word| Err(word.wrong(format!("{} takes nothing more", at.text))))
}

/// A plugin that may stand once in a block.
pub fn once<T>(slot: &mut Option<T>, directive: &Directive, value: T) -> Result<(), Wrong> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(directive.name.wrong("stands in this block already")),
    }
}

/// A whole number within bounds.
pub fn number(word: &Word, range: std::ops::RangeInclusive<u64>) -> Result<u64, Wrong> {
    let wrong = || word.wrong(format!("a number from {} to {} is wanted", range.start(), range.end()));
    word.text.parse().ok().filter(|n| range.contains(n)).ok_or_else(wrong)
}

/// A duration as Go writes it, `1h30m`, `1.5s` or `300ms`, up to a bound.
pub fn duration(word: &Word, most: Duration) -> Result<Duration, Wrong> {
    let found = go_duration(&word.text).ok_or_else(|| word.wrong("no duration like 300ms, 5s or 1h30m"))?;
    if found > most { Err(word.wrong(format!("longer than {}s", most.as_secs()))) } else { Ok(found) }
}

fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += value
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// An address with the port that it has, or this one.
pub fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, port)).or_else(|_| text.parse()).ok()
}

/// An expression over names.
pub fn expression(word: &Word) -> Result<Regex, Wrong> {
    if word.text.len() > MOST_EXPRESSION {
        return Err(word.wrong(format!("an expression of more than {MOST_EXPRESSION} bytes")));
    }
    let built = RegexBuilder::new(&word.text).size_limit(MOST_COMPILED).dfa_size_limit(MOST_COMPILED).build();
    built.map_err(|error| {
        let told = error.to_string();
        word.wrong(format!("no expression: {}", told.lines().last().unwrap_or_default()))
    })
}

/// Record types by name; others as `TYPE123`.
const TYPES: &[(&str, u16)] = &[
    ("A", kind::A),
    ("NS", kind::NS),
    ("CNAME", kind::CNAME),
    ("SOA", kind::SOA),
    ("PTR", kind::PTR),
    ("HINFO", 13),
    ("MX", kind::MX),
    ("TXT", kind::TXT),
    ("AAAA", kind::AAAA),
    ("SRV", kind::SRV),
    ("NAPTR", kind::NAPTR),
    ("DNAME", kind::DNAME),
    ("DS", 43),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("NSEC3", 50),
    ("TLSA", 52),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("SPF", 99),
    ("ANY", kind::ANY),
    ("CAA", 257),
];

pub fn record_type(word: &Word) -> Result<u16, Wrong> {
    let text = word.text.to_ascii_uppercase();
    let known = TYPES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    let number = known.or_else(|| text.strip_prefix("TYPE")?.parse().ok());
    number.ok_or_else(|| word.wrong("no record type like A, AAAA or TYPE65"))
}

pub fn type_name(number: u16) -> String {
    let known = TYPES.iter().find(|(_, n)| *n == number);
    known.map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_owned())
}

pub fn class(word: &Word) -> Result<u16, Wrong> {
    match word.text.to_ascii_uppercase().as_str() {
        "IN" => Ok(kind::IN),
        "CH" => Ok(3),
        "HS" => Ok(4),
        "ANY" => Ok(255),
        _ => Err(word.wrong("a class is IN, CH, HS or ANY")),
    }
}

/// Codes that fit the header; those above 15 are for who speaks about transactions and keys.
const CODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
    "NOTZONE",
];

pub fn rcode(word: &Word) -> Result<u8, Wrong> {
    let text = word.text.to_ascii_uppercase();
    let named = CODES.iter().position(|name| *name == text).map(|at| at as u8);
    let number = named.or_else(|| text.parse().ok().filter(|n: &u8| usize::from(*n) < CODES.len()));
    number.ok_or_else(|| word.wrong("no response code like NXDOMAIN or SERVFAIL"))
}

pub fn rcode_name(code: u8) -> &'static str {
    CODES.get(usize::from(code)).copied().unwrap_or("OTHER")
}

#[cfg(test)]
mod tests {
    use super::super::words::lines;
    use super::*;

    fn word(text: &str) -> Word {
        lines("Corefile", text).unwrap().remove(0).remove(0)
    }

    fn names(text: &str) -> Vec<String> {
        zone(&word(text), text).unwrap().iter().map(Name::to_string).collect()
    }

    #[test]
    fn ranges_are_reverse_zones() {
        assert_eq!(names("10.0.0.0/8"), ["10.in-addr.arpa."]);
        assert_eq!(names("10.96.0.0/15"), ["96.10.in-addr.arpa.", "97.10.in-addr.arpa."]);
        assert_eq!(names("0.0.0.0/0"), ["in-addr.arpa."]);
        assert_eq!(names("fd00:10::/29").len(), 8);
        assert_eq!(names("fd42::/32"), ["0.0.0.0.2.4.d.f.ip6.arpa."]);
        assert_eq!(names("Example.ORG"), ["example.org."]);
        assert!(zone(&word("a/b"), "a/b").is_err());
    }

    #[test]
    fn durations_are_gos() {
        let millis = |text: &str| duration(&word(text), Duration::from_secs(86_400)).map(|d| d.as_millis()).ok();
        assert_eq!(millis("1h1m1.5s"), Some(3_661_500));
        assert_eq!((millis("300ms"), millis("0"), millis("5")), (Some(300), Some(0), None));
        for wrong in ["s", "1", "-1s", "1d", "25h", "1e9h", ".s"] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn falling_through_is_by_zone() {
        let of = |text: &str| Fall::parse(&lines("", text).unwrap().concat()).unwrap();
        let name = |text: &str| Name::parse(text).unwrap();
        let some = of("in-addr.arpa ip6.arpa");
        assert!(some.through(name("1.0.0.10.in-addr.arpa").as_bytes()));
        assert!(!some.through(name("a.cluster.local").as_bytes()) && !some.through(name("xin-addr.arpa").as_bytes()));
        assert!(of("").through(name("a.b").as_bytes()) && !Fall::default().through(name("a.b").as_bytes()));
        assert!(is_below(name(".").as_bytes(), name(".").as_bytes()));
    }

    #[test]
    fn expressions_are_bounded() {
        assert!(expression(&word("(.*)\\.example\\.org")).is_ok());
        assert!(expression(&word("(a{1000}){1000}")).unwrap_err().reason.contains("size limit"));
        assert!(expression(&word("(")).is_err() && expression(&word(&"a".repeat(10_001))).is_err());
    }
}
