//! Formats of strings that custom resources are validated against. Unknown formats mean nothing.
//!
//! What each format accepts is what upstream accepts, leniencies included (leading zeros in IPv4, lower-case `t` in
//! times), because objects that upstream stored must stay valid.

use crate::Pattern;
use meta::names;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

/// Formats of strings that [`accepts`] judges, by their names without dashes.
const KNOWN: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether the format means anything for values of this type, which is empty when none is said.
pub fn known(format: &str, ty: &str) -> bool {
    match ty {
        "" | "string" => KNOWN.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether `text` has the format; `true` for formats that nobody knows.
pub fn accepts(format: &str, text: &str) -> bool {
    // Names of formats compare without dashes: `date-time` and `datetime` are one.
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && hex(text),
        "uri" => uri(text),
        "email" => email(text),
        "hostname" => HOSTNAME.is_match(text),
        "ipv4" => ipv4(text).is_some(),
        "ipv6" => text.contains(':') && text.parse::<IpAddr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => credit_card(text),
        "ssn" => SSN.is_match(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "byte" => base64(text),
        "date" => text.len() == 10 && meta::time::parse(&format!("{text}T00:00:00Z")).is_some(),
        "duration" => duration(text),
        "datetime" => meta::time::parse(&text.to_ascii_uppercase()).is_some(),
        "k8sshortname" => names::dns1123_label(text).is_empty(),
        "k8slongname" => names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

static HOSTNAME: LazyLock<Pattern> = LazyLock::new(|| {
    const WORD: &str = r"[a-zA-Z0-9\p{S}\p{L}]";
    Pattern::new(format!(
        r"^({WORD}(-?{WORD}{{0,62}})?|({WORD}([a-zA-Z0-9\-\p{{S}}\p{{L}}]{{0,61}}{WORD})?\.)+[a-zA-Z\p{{L}}]{{2,63}})$"
    ))
});
static SSN: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"));
static HEX_COLOR: LazyLock<Pattern> = LazyLock::new(|| Pattern::new("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"));
static RGB_COLOR: LazyLock<Pattern> = LazyLock::new(|| {
    const BYTE: &str = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*";
    Pattern::new(format!(r"^rgb\({BYTE},{BYTE},{BYTE}\)$"))
});
fn hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An absolute path, or anything after a scheme.
fn uri(text: &str) -> bool {
    if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return false;
    }
    let scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    };
    text.starts_with('/') || text.split_once(':').is_some_and(|(s, rest)| scheme(s) && !rest.is_empty())
}

fn email(text: &str) -> bool {
    let address = match (text.find('<'), text.strip_suffix('>')) {
        (Some(at), Some(inner)) => &inner[at + 1..],
        _ => text,
    };
    address.rsplit_once('@').is_some_and(|(local, domain)| {
        let word = |s: &str| !s.is_empty() && !s.starts_with('.') && !s.ends_with('.');
        word(local) && word(domain) && !address.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}

/// Four decimal numbers; unlike the strict form, leading zeros are allowed.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut out = [0u8; 4];
    let mut parts = text.split('.');
    for byte in &mut out {
        let part = parts.next().filter(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))?;
        *byte = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(out))
}

fn cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.contains(':') {
            true => address.parse::<IpAddr>().ok().map(|_| 128),
            false => ipv4(address).map(|_| 32),
        };
        let number = bits.bytes().all(|b| b.is_ascii_digit()).then(|| bits.parse::<u32>().ok()).flatten();
        matches!((most, number), (Some(most), Some(n)) if n <= most)
    })
}

/// 6, 8 or 20 bytes, in pairs with colons or dashes or in fours with dots.
fn mac(text: &str) -> bool {
    let grouped = |separator: char, width: usize, counts: [usize; 3]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|p| p.len() == width && hex(p))
    };
    grouped(':', 2, [6, 8, 20]) || grouped('-', 2, [6, 8, 20]) || grouped('.', 4, [3, 4, 10])
}

/// Dashes are optional; a version asks for its digit, versions 4 and 5 also for the variant.
fn uuid(text: &str, version: Option<char>) -> bool {
    let plain = text.len() == 32 && hex(text);
    let dashed = text.len() == 36
        && text.bytes().enumerate().all(
            |(at, b)| {
                if matches!(at, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() }
            },
        );
    if !plain && !dashed {
        return false;
    }
    let digits: Vec<char> = text.chars().filter(|c| *c != '-').collect();
    let variant = matches!(digits[16].to_ascii_lowercase(), '8' | '9' | 'a' | 'b');
    match version {
        None => true,
        Some('3') => digits[12] == '3',
        Some(version) => digits[12] == version && variant,
    }
}

fn book_digits(text: &str) -> Vec<char> {
    text.chars().filter(|c| *c != '-' && !c.is_whitespace()).collect()
}

fn isbn10(text: &str) -> bool {
    let digits = book_digits(text);
    if digits.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (at, c) in digits.iter().enumerate() {
        let value = match (at, c) {
            (9, 'X') => 10,
            _ => match c.to_digit(10) {
                Some(value) => value,
                None => return false,
            },
        };
        sum += (at as u32 + 1) * value;
    }
    sum % 11 == 0
}

fn isbn13(text: &str) -> bool {
    let digits: Option<Vec<u32>> = book_digits(text).iter().map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        let sum: u32 = digits.iter().enumerate().map(|(at, d)| d * if at % 2 == 0 { 1 } else { 3 }).sum();
        digits.len() == 13 && sum.is_multiple_of(10)
    })
}

fn credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    if !(13..=19).contains(&digits.len()) || text.contains(|c: char| c.is_alphabetic()) {
        return false;
    }
    let doubled = |d: u32| if d * 2 > 9 { d * 2 - 9 } else { d * 2 };
    let sum: u32 = digits.iter().rev().enumerate().map(|(at, d)| if at % 2 == 1 { doubled(*d) } else { *d }).sum();
    sum.is_multiple_of(10)
}

/// Standard alphabet, padded; line breaks are skipped.
fn base64(text: &str) -> bool {
    let bytes: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
    let data = bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len());
    bytes.len().is_multiple_of(4)
        && bytes.len() - data <= 2
        && bytes[data..].iter().all(|b| *b == b'=')
        && bytes[..data].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn duration(text: &str) -> bool {
    meta::duration::parse_nanos(text).is_ok() || worded_duration(text)
}

/// Units of durations in words: whole ones, and one that may go on in any way (`1 millisecond`).
const UNITS: [(&[&str], &str); 8] = [
    (&["ns"], "nano"),
    (&["us", "µs"], "micro"),
    (&["ms"], "milli"),
    (&["s"], "sec"),
    (&["m"], "min"),
    (&["h", "hr"], "hour"),
    (&["d"], "day"),
    (&["w", "wk"], "week"),
];

/// Whether there is a number with a unit anywhere in the text, and none that is too large.
fn worded_duration(text: &str) -> bool {
    let (mut rest, mut found) = (text, false);
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let number = &rest[start..];
        let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let space = |c: char| matches!(c, '\t' | '\n' | '\x0C' | '\r' | ' ');
        let word = number[digits..].trim_start_matches(space);
        let letters = word.find(|c: char| !(c.is_ascii_alphabetic() || c == 'µ')).unwrap_or(word.len());
        rest = &word[letters..];
        if letters == 0 {
            continue;
        }
        if number[..digits].parse::<i64>().is_err() {
            return false;
        }
        let unit = word[..letters].to_lowercase();
        found |= UNITS.iter().any(|(whole, begins)| whole.contains(&unit.as_str()) || unit.starts_with(begins));
    }
    found
}
