//! An address with a prefix length: `10.42.0.1/24` as an interface address, `10.42.0.0/16` as a range.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An IP address and how many of its leading bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    pub addr: IpAddr,
    pub len: u8,
}

/// Text that is not `address/length`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address range such as 10.42.0.0/16")]
pub struct ParsePrefixError(pub String);

impl Prefix {
    pub fn new(addr: impl Into<IpAddr>, len: u8) -> Self {
        Prefix { addr: addr.into(), len }
    }

    /// The prefix that holds `addr` alone: /32 or /128.
    pub fn host(addr: impl Into<IpAddr>) -> Self {
        let addr = addr.into();
        Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }

    /// 32 for IPv4, 128 for IPv6.
    pub fn width(&self) -> u8 {
        if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// The same range with the host bits cleared.
    pub fn network(&self) -> Prefix {
        Prefix { addr: from_bits(self.bits() & self.mask(), self.addr.is_ipv4()), len: self.len }
    }

    /// The last address of the range.
    pub fn last(&self) -> IpAddr {
        let wide = if self.addr.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
        from_bits(self.bits() | (!self.mask() & wide), self.addr.is_ipv4())
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4() && (bits(addr) & self.mask()) == (self.bits() & self.mask())
    }

    /// The address `n` steps after the network address; none when that is outside the range.
    pub fn nth(&self, n: u128) -> Option<IpAddr> {
        let base = self.bits() & self.mask();
        let addr = from_bits(base.checked_add(n)?, self.addr.is_ipv4());
        self.contains(addr).then_some(addr)
    }

    /// The netmask as address bytes, 4 or 16 of them.
    pub fn mask_bytes(&self) -> Vec<u8> {
        octets(from_bits(self.mask(), self.addr.is_ipv4()))
    }

    fn bits(&self) -> u128 {
        bits(self.addr)
    }

    fn mask(&self) -> u128 {
        let width = u32::from(self.width());
        let host = width - u32::from(self.len).min(width);
        let all = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
        if host >= 128 { 0 } else { (all >> host) << host }
    }
}

/// The bytes of an address in network order.
pub(crate) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(bits: u128, v4: bool) -> IpAddr {
    if v4 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParsePrefixError(text.to_owned());
        let (addr, len) = text.split_once('/').ok_or_else(wrong)?;
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let prefix = Prefix { addr, len: len.parse().map_err(|_| wrong())? };
        if prefix.len > prefix.width() { Err(wrong()) } else { Ok(prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_ends_and_what_they_hold() {
        let range: Prefix = "10.42.3.7/22".parse().unwrap();
        assert_eq!(range.network().to_string(), "10.42.0.0/22");
        assert_eq!(range.last().to_string(), "10.42.3.255");
        assert!(range.contains("10.42.2.9".parse().unwrap()));
        assert!(!range.contains("10.42.4.0".parse().unwrap()));
        assert_eq!(range.nth(1), Some("10.42.0.1".parse().unwrap()));
        assert_eq!(range.nth(1024), None);
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        let six: Prefix = "fd00::/64".parse().unwrap();
        assert_eq!(six.last().to_string(), "fd00::ffff:ffff:ffff:ffff");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/-1", "fd00::/129"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
