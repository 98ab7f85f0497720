//! Addresses and ports of Services: the ranges they come from, which ([`fields`]) of which families ([`families`]) a
//! service needs, what says whose they are ([`held`]), and what is done when that is wrong ([`repair`]). Pure, but for
//! the loop of the repair.

pub mod families;
pub mod fields;
pub mod held;
pub mod repair;

use std::net::IpAddr;

use meta::Prefix;

/// A service address range: which addresses of a prefix Services are given, and in which order they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    prefix: Prefix,
    /// Addresses of it that are used, from its first.
    size: u128,
}

/// Largest range that is used: upstream caps IPv6 ranges the same way.
const MAX_BITS: u8 = 20;

impl Range {
    /// Reads `10.96.0.0/12`.
    pub fn parse(text: &str) -> Result<Range, String> {
        let prefix: Prefix = text.parse().map_err(|_| format!("{text:?} is not a range such as 10.96.0.0/12"))?;
        let host = prefix.width() - prefix.len;
        if host < 2 {
            return Err(format!("{text:?} is too small for services"));
        }
        Ok(Range { prefix, size: 1 << host.min(MAX_BITS) })
    }

    /// The first usable address: the `kubernetes` Service's.
    pub fn first(&self) -> Result<IpAddr, String> {
        self.prefix.nth(1).ok_or_else(|| format!("{} is too small for services", self.prefix))
    }

    /// Whether a service may have this address (not the network's own, not the broadcast address), be it one that is
    /// tried or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        let broadcast = self.is_ipv4() && address == self.prefix.last();
        self.prefix.offset(address).is_some_and(|offset| offset >= 1) && !broadcast
    }

    fn last_offset(&self) -> u128 {
        // IPv4 keeps its broadcast address out.
        self.size - if self.is_ipv4() { 2 } else { 1 }
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
        let prefix = self.prefix;
        let (low, last) = (self.reserved(), self.last_offset());
        let upper = last - low;
        let start = if upper == 0 { 0 } else { u128::from(random) % upper };
        let upper_band = (0..upper).map(move |i| low + 1 + (start + i) % upper);
        upper_band.chain(1..=low.min(last)).filter_map(move |offset| prefix.nth(offset))
    }

    pub fn is_ipv4(&self) -> bool {
        !self.prefix.is_ipv6()
    }

    /// The family, as the API names it.
    pub fn family(&self) -> &'static str {
        if self.is_ipv4() { "IPv4" } else { "IPv6" }
    }
}

/// The ranges of `--service-cluster-ip-range`: one, or one of each family. The first is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// Reads `10.96.0.0/12` or `10.96.0.0/12,fd00:10:96::/108`.
    pub fn parse(text: &str) -> Result<Ranges, String> {
        let ranges: Vec<Range> = text.split(',').map(|one| Range::parse(one.trim())).collect::<Result<_, _>>()?;
        match ranges.as_slice() {
            [_] => Ok(Ranges(ranges)),
            [first, second] if first.is_ipv4() != second.is_ipv4() => Ok(Ranges(ranges)),
            [_, _] => Err(format!("{text:?}: two ranges are of different families")),
            _ => Err(format!("{text:?}: one range, or one of each family, is wanted")),
        }
    }

    /// The range whose first address is the `kubernetes` Service's.
    pub fn default_range(&self) -> Range {
        self.0[0]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Range> {
        self.0.iter()
    }

    /// The families, as the API names them.
    pub fn families(&self) -> Vec<&'static str> {
        self.0.iter().map(Range::family).collect()
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
    fn two_ranges_are_of_different_families() {
        let both = Ranges::parse("10.96.0.0/12, fd00:10:96::/108").expect("ranges");
        assert_eq!(both.families(), ["IPv4", "IPv6"]);
        assert_eq!(Ranges::parse("fd00::/108,10.0.0.0/16").expect("ranges").default_range().family(), "IPv6");
        for bad in ["10.0.0.0/16,10.1.0.0/16", "10.0.0.0/16,fd00::/108,fd01::/108", "10.0.0.0/16,", ""] {
            assert!(Ranges::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_are_checked() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/31"] {
            assert!(Range::parse(bad).is_err(), "{bad}");
        }
        // A shift by all bits is none that there is.
        assert!(Range::parse("::/0").is_ok_and(|r| r.contains("::5".parse().expect("ip"))));
        let wide = Range::parse("fd00::/64").expect("a range");
        assert!(wide.contains("fd00::f:0:5".parse().expect("ip")), "more than are tried may be asked for");
        assert!(Range::parse("fd00::/108").is_ok_and(|r| !r.is_ipv4() && r.contains("fd00::5".parse().expect("ip"))));
    }
}
