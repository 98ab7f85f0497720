//! Addresses and ports of Services: the ranges they come from, and ([`fields`]) which a service needs. Pure.

pub mod fields;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A service address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    base: u128,
    /// Addresses in the range.
    size: u128,
    v4: bool,
}

/// Largest range that is used: upstream caps IPv6 ranges the same way.
const MAX_BITS: u32 = 20;

impl Range {
    /// Reads `10.96.0.0/12`.
    pub fn parse(text: &str) -> Result<Range, String> {
        let bad = || format!("{text:?} is not a range such as 10.96.0.0/12");
        let (address, length) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let length: u32 = length.parse().map_err(|_| bad())?;
        let (bits, v4, base) = match address {
            IpAddr::V4(v4) => (32, true, u128::from(u32::from(v4))),
            IpAddr::V6(v6) => (128, false, u128::from(v6)),
        };
        if length > bits || bits - length < 2 {
            return Err(format!("{text:?} is too small for services"));
        }
        let host = bits - length;
        let base = base.checked_shr(host).map_or(0, |network| network << host);
        Ok(Range { base, size: 1 << host.min(MAX_BITS), v4 })
    }

    fn at(&self, offset: u128) -> IpAddr {
        let address = self.base + offset;
        if self.v4 { IpAddr::V4(Ipv4Addr::from(address as u32)) } else { IpAddr::V6(Ipv6Addr::from(address)) }
    }

    /// The first usable address: the `kubernetes` Service's.
    pub fn first(&self) -> Result<IpAddr, String> {
        Ok(self.at(1))
    }

    /// Whether a service may have this address (not the network's own, not the broadcast address).
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = match (address, self.v4) {
            (IpAddr::V4(v4), true) => u128::from(u32::from(v4)),
            (IpAddr::V6(v6), false) => u128::from(v6),
            _ => return false,
        };
        number.checked_sub(self.base).is_some_and(|offset| offset >= 1 && offset <= self.last_offset())
    }

    fn last_offset(&self) -> u128 {
        // IPv4 keeps its broadcast address out.
        self.size - if self.v4 { 2 } else { 1 }
    }

    /// Usable addresses.
    pub fn usable(&self) -> u128 {
        self.last_offset()
    }

    /// Addresses of the lower band are left to people who choose their own: 1/16 of the range, 16 to 256.
    pub fn reserved(&self) -> u128 {
        if self.usable() <= 16 { 0 } else { (self.size / 16).clamp(16, 256) }
    }

    /// Candidates in the order to try: from a random place in the upper band, around, then the lower band.
    pub fn candidates(&self, random: u64) -> impl Iterator<Item = IpAddr> + use<> {
        let range = *self;
        let (low, last) = (range.reserved(), range.last_offset());
        let upper = last - low;
        let start = if upper == 0 { 0 } else { u128::from(random) % upper };
        let upper_band = (0..upper).map(move |i| low + 1 + (start + i) % upper);
        upper_band.chain(1..=low.min(last)).map(move |offset| range.at(offset))
    }

    pub fn is_ipv4(&self) -> bool {
        self.v4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn candidates_cover_the_range_once_upper_band_first() {
        let range = Range::parse("10.0.0.0/24").expect("range");
        let all: Vec<IpAddr> = range.candidates(77).collect();
        assert_eq!(all.len(), 254);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 254);
        assert!(all.iter().all(|a| range.contains(*a)));
        assert!(all[..238].iter().all(|a| *a > IpAddr::from([10, 0, 0, 16])));
        assert!(!range.contains(IpAddr::from([10, 0, 0, 0])) && !range.contains(IpAddr::from([10, 0, 0, 255])));
        assert_eq!(range.first(), Ok(IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn ranges_are_checked() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/31"] {
            assert!(Range::parse(bad).is_err(), "{bad}");
        }
        // A shift by all bits is none that there is.
        assert!(Range::parse("::/0").is_ok_and(|r| r.contains("::5".parse().expect("ip"))));
        assert!(Range::parse("fd00::/108").is_ok_and(|r| !r.is_ipv4() && r.contains("fd00::5".parse().expect("ip"))));
    }
}
