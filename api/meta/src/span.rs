//! Addresses from one to another, both included, as pools of addresses are written: `192.168.1.240-192.168.1.250`, or a
//! range in CIDR notation. Pure. The configuration checks them, the controller of load balancers gives addresses out of
//! them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::Prefix;

/// See the module's head. Both ends are of one family, and the first is not after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    first: IpAddr,
    last: IpAddr,
}

/// Why text is no span of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Neither form.
    #[error("{0:?} is no range of addresses: write it like 192.168.1.240-192.168.1.250 or 2001:db8::/120")]
    Form(String),
    /// An IPv4 address and an IPv6 address.
    #[error("{0} and {1} are of two families: both ends of a range are of one")]
    Families(IpAddr, IpAddr),
    /// The first is after the last.
    #[error("{0}-{1} ends before it begins: say the lower address first")]
    Backwards(IpAddr, IpAddr),
}

impl Span {
    /// From one address to another.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Span, SpanError> {
        match (first.is_ipv6() == last.is_ipv6(), first <= last) {
            (false, _) => Err(SpanError::Families(first, last)),
            (_, false) => Err(SpanError::Backwards(first, last)),
            _ => Ok(Span { first, last }),
        }
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Of which family both ends are.
    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    /// Whether the address is one of these. Never true of the other family.
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv6() == self.is_ipv6() && self.first <= addr && addr <= self.last
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Span) -> bool {
        self.is_ipv6() == other.is_ipv6() && self.first <= other.last && other.first <= self.last
    }

    /// Every address in order. Lazy: a span may have 2^128 of them.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let all = Prefix::everything(self.is_ipv6());
        // Every address is inside of everything.
        let place = |addr| all.offset(addr).unwrap_or_default();
        (place(self.first)..=place(self.last)).map_while(move |n| all.nth(n))
    }
}

impl From<Prefix> for Span {
    fn from(range: Prefix) -> Span {
        Span { first: range.network().addr, last: range.last() }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for Span {
    type Err = SpanError;

    /// An address alone is a span of one.
    fn from_str(text: &str) -> Result<Span, SpanError> {
        let text = text.trim();
        let wrong = || SpanError::Form(text.to_owned());
        if let Ok(range) = text.parse::<Prefix>() {
            return Ok(range.into());
        }
        let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| wrong());
        match text.split_once('-') {
            Some((first, last)) => Span::new(address(first)?, address(last)?),
            None => address(text).map(|one| Span { first: one, last: one }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_of_both_forms_hold_their_ends() {
        let few = span("192.168.1.240 - 192.168.1.242");
        let all: Vec<String> = few.addresses().map(|a| a.to_string()).collect();
        assert_eq!(all, ["192.168.1.240", "192.168.1.241", "192.168.1.242"]);
        assert_eq!((few.to_string(), span(&few.to_string())), ("192.168.1.240-192.168.1.242".to_owned(), few));
        let v6 = span("2001:db8::7/120");
        assert_eq!((v6.first(), v6.last()), ("2001:db8::".parse().unwrap(), "2001:db8::ff".parse().unwrap()));
        assert_eq!(v6.addresses().count(), 256);
        assert!(v6.contains("2001:db8::80".parse().unwrap()) && !v6.contains("192.168.1.240".parse().unwrap()));
        assert!(!v6.contains("2001:db8::100".parse().unwrap()));
        assert_eq!(span("192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(span("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").addresses().nth(3).unwrap().to_string(), "::3");
        assert_eq!(span("255.255.255.254-255.255.255.255").addresses().count(), 2);
    }

    #[test]
    fn ranges_that_share_an_address_overlap() {
        let few = span("192.168.1.240-192.168.1.250");
        for (other, overlaps) in [
            ("192.168.1.250-192.168.2.1", true),
            ("192.168.1.0/24", true),
            ("192.168.1.251", false),
            ("192.168.0.0-192.168.1.239", false),
            ("::/0", false),
        ] {
            assert_eq!((few.overlaps(&span(other)), span(other).overlaps(&few)), (overlaps, overlaps), "{other}");
        }
    }

    #[test]
    fn what_is_none_says_what_would_be_right() {
        let said = |text: &str| text.parse::<Span>().unwrap_err().to_string();
        for text in ["", "192.168.1.240-", "192.168.1.240-250", "192.168.1.0/33", "a-b", "1.2.3.4-1.2.3.5-1.2.3.6"] {
            assert!(said(text).contains("192.168.1.240-192.168.1.250 or 2001:db8::/120"), "{text}");
        }
        assert!(said("192.0.2.1-::1").contains("two families"));
        assert_eq!(
            said("192.0.2.9-192.0.2.1"),
            "192.0.2.9-192.0.2.1 ends before it begins: say the lower address first"
        );
    }
}
