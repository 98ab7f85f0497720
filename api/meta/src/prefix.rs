//! An address with a prefix length, both families: `10.42.0.1/24` as an interface has it, `10.42.0.0/16` as a range
//! (CIDR notation). Pure. Flags, configuration, validation, node-ipam, the Services' addresses, kube-proxy, the pod
//! networks and netlink all mean this one.
//!
//! ```text
//!            10.42.3.7/22            fd00:10::/48
//! network()  10.42.0.0/22            fd00:10::/48        host bits cleared
//! last()     10.42.3.255             fd00:10:0:ffff:ffff:ffff:ffff:ffff
//! nth(1)     10.42.0.1               fd00:10::1          counted from the network address
//! subnets(24)  10.42.0.0/24 …        -                   a longer prefix only
//! ```
//!
//! The two families never mix: no IPv4 range contains, covers or overlaps one of IPv6, and an IPv4 address in IPv6
//! clothes (`::ffff:10.0.0.1`) is one of IPv6 here ([`crate::ip`] undresses). Equality is of the text: `10.0.0.1/8` and
//! `10.0.0.0/8` are two values of one range, so compare [`Prefix::network`]s where the host bits don't matter.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP address and how many of its leading bits name the network. See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Any address of the range; host bits are kept.
    pub addr: IpAddr,
    /// Bits, up to [`Prefix::width`]; more counts as that.
    pub len: u8,
}

/// Text that is not `address/length`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address range such as 10.42.0.0/16 or fd00:10::/48")]
pub struct ParsePrefixError(pub String);

impl Prefix {
    /// As it is given: host bits stay, and a length beyond the address's counts as its width.
    pub fn new(addr: impl Into<IpAddr>, len: u8) -> Self {
        Prefix { addr: addr.into(), len }
    }

    /// The prefix that holds `addr` alone: /32 or /128.
    pub fn host(addr: impl Into<IpAddr>) -> Self {
        let addr = addr.into();
        Prefix { addr, len: width(addr) }
    }

    /// All addresses of a family: `0.0.0.0/0` or `::/0`.
    pub fn everything(v6: bool) -> Self {
        Prefix { addr: from_bits(0, !v6), len: 0 }
    }

    /// Of the address as it stands: an IPv4 address that is mapped into IPv6 is IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.addr.is_ipv6()
    }

    /// 32 for IPv4, 128 for IPv6.
    pub fn width(&self) -> u8 {
        width(self.addr)
    }

    /// The same range with the host bits cleared.
    pub fn network(&self) -> Prefix {
        Prefix { addr: from_bits(self.base(), self.addr.is_ipv4()), len: self.len }
    }

    /// The last address of the range: the broadcast address of an IPv4 link.
    pub fn last(&self) -> IpAddr {
        from_bits(self.base() | self.host_mask(), self.addr.is_ipv4())
    }

    /// Whether the address is one of the range's. Never true of the other family.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.offset(addr).is_some()
    }

    /// Whether every address of the other is one of these. A range covers itself.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }

    /// Whether some address is in both: of two ranges that overlap one covers the other.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The address `n` steps after the network address; none when that is outside the range.
    pub fn nth(&self, n: u128) -> Option<IpAddr> {
        (n <= self.host_mask()).then(|| from_bits(self.base() + n, self.addr.is_ipv4()))
    }

    /// How many steps after the network address an address is; none when it is outside the range. The reverse of
    /// [`Prefix::nth`].
    pub fn offset(&self, addr: IpAddr) -> Option<u128> {
        let inside = addr.is_ipv4() == self.addr.is_ipv4() && bits(addr) & !self.host_mask() == self.base();
        inside.then(|| bits(addr) - self.base())
    }

    /// Every address in order, the network's own and the last included.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let range = *self;
        (0..=range.host_mask()).map_while(move |n| range.nth(n))
    }

    /// The ranges of a longer prefix that this one is cut into, in order; none when `len` is shorter or too long.
    /// Lazy: `::/0` may be cut into all its 2^128 addresses.
    pub fn subnets(&self, len: u8) -> impl Iterator<Item = Prefix> + use<> {
        let (base, v4, width) = (self.base(), self.addr.is_ipv4(), self.width());
        let bits = len.checked_sub(self.len).filter(|_| len <= width);
        let last = bits.map(|bits| 1u128.checked_shl(bits.into()).map_or(u128::MAX, |count| count - 1));
        last.into_iter().flat_map(|last| 0..=last).map(move |n| {
            // A shift by the whole width happens for the one subnet of ::/0 that is ::/0, whose number is 0.
            let offset = n.checked_shl(u32::from(width - len)).unwrap_or(0);
            Prefix { addr: from_bits(base + offset, v4), len }
        })
    }

    /// The netmask as address bytes, 4 or 16 of them.
    pub fn mask_bytes(&self) -> Vec<u8> {
        match from_bits(!self.host_mask() & all(self.width()), self.addr.is_ipv4()) {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }
    }

    fn base(&self) -> u128 {
        bits(self.addr) & !self.host_mask()
    }

    /// Ones where the host's bits are; as a number, the offset of the last address.
    fn host_mask(&self) -> u128 {
        all(self.width() - self.len.min(self.width()))
    }
}

/// The lowest `count` bits.
fn all(count: u8) -> u128 {
    u128::MAX.checked_shr(128 - u32::from(count)).unwrap_or(0)
}

fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
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

    /// Strict, as validation is: no blanks, no sign, no leading zeros in either part.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let (addr, len) = text.split_once('/')?;
            let plain = len == "0" || !len.starts_with(['0', '+']);
            let prefix = Prefix { addr: addr.parse().ok()?, len: len.parse().ok().filter(|_| plain)? };
            (prefix.len <= prefix.width()).then_some(prefix)
        };
        parsed().ok_or_else(|| ParsePrefixError(text.to_owned()))
    }
}

impl Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Prefix, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_know_their_ends_and_what_they_hold() {
        // Range, network, last, nth(1), an address inside, one outside.
        let rows = [
            ("10.42.3.7/22", "10.42.0.0/22", "10.42.3.255", "10.42.0.1", "10.42.2.9", "10.42.4.0"),
            ("0.0.0.0/0", "0.0.0.0/0", "255.255.255.255", "0.0.0.1", "255.1.2.3", "::1"),
            ("10.0.0.0/31", "10.0.0.0/31", "10.0.0.1", "10.0.0.1", "10.0.0.0", "10.0.0.2"),
            ("fd00::5/64", "fd00::/64", "fd00::ffff:ffff:ffff:ffff", "fd00::1", "fd00::9", "fd01::"),
            ("::/0", "::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1", "fd00::", "0.0.0.1"),
        ];
        for (range, network, last, first, inside, outside) in rows {
            let range = prefix(range);
            assert_eq!((range.network().to_string().as_str(), range.last()), (network, ip(last)), "{range}");
            assert_eq!(range.nth(1), Some(ip(first)), "{range}");
            assert!(range.contains(ip(inside)) && !range.contains(ip(outside)), "{range}");
        }
        assert_eq!(prefix("10.42.3.7/22").nth(1024), None);
        assert_eq!(prefix("10.0.0.9/32").addresses().collect::<Vec<_>>(), [ip("10.0.0.9")]);
        assert_eq!(prefix("10.0.0.0/30").addresses().count(), 4);
        assert_eq!(prefix("::/0").addresses().nth(2), Some(ip("::2")));
        assert_eq!(prefix("10.0.0.0/9").mask_bytes(), [255, 128, 0, 0]);
        assert_eq!(prefix("fd00::/12").mask_bytes()[..3], [255, 240, 0]);
    }

    #[test]
    fn subnets_come_in_order_and_overlap_only_themselves() {
        let all: Vec<_> = prefix("10.244.0.0/16").subnets(24).collect();
        assert_eq!((all.len(), all[255]), (256, prefix("10.244.255.0/24")));
        assert!(all[1].overlaps(&prefix("10.244.0.0/16")) && !all[1].overlaps(&all[2]));
        assert_eq!(prefix("fd00:10::/48").subnets(64).nth(2), Some(prefix("fd00:10:0:2::/64")));
        assert_eq!(prefix("10.0.0.7/24").subnets(24).collect::<Vec<_>>(), [prefix("10.0.0.0/24")]);
        assert_eq!(prefix("::/0").subnets(0).collect::<Vec<_>>(), [prefix("::/0")]);
        assert_eq!(prefix("::/0").subnets(128).nth(1), Some(prefix("::1/128")));
        assert_eq!(prefix("10.0.0.0/24").subnets(16).count() + prefix("10.0.0.0/24").subnets(33).count(), 0);
        assert!(prefix("0.0.0.0/0").overlaps(&all[0]) && !prefix("::/0").overlaps(&all[0]));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/-1", "fd00::/129", "10.0.0.0/", " 10.0.0.0/8"]
            .into_iter()
            .chain(["10.0.0.0/08", "10.0.0.0/+8", "010.0.0.0/8", "10.0.0.0/8/8", "10.0.0.0/00", "10.0/16"])
        {
            let error = text.parse::<Prefix>().unwrap_err();
            assert!(error.to_string().contains("10.42.0.0/16"), "{text}: {error}");
        }
    }

    #[test]
    fn documents_have_it_as_text() {
        let range = prefix("fd00::/64");
        assert_eq!(serde_json::to_string(&range).unwrap(), "\"fd00::/64\"");
        assert_eq!(serde_json::from_str::<Prefix>("\"fd00::/64\"").unwrap(), range);
        assert!(serde_json::from_str::<Prefix>("\"fd00::\"").is_err());
    }

    fn ranges() -> impl Strategy<Value = Prefix> {
        let four = (any::<u32>(), 0..=32u8).prop_map(|(a, len)| Prefix::new(std::net::Ipv4Addr::from(a), len));
        let six = (any::<u128>(), 0..=128u8).prop_map(|(a, len)| Prefix::new(std::net::Ipv6Addr::from(a), len));
        prop_oneof![four, six]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_a_range_holds_its_own(a in ranges(), b in ranges(), n in any::<u128>()) {
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert!(a.contains(a.addr) && a.contains(a.last()) && a.covers(&a.network()));
            prop_assert_eq!(a.nth(n).map(|ip| a.offset(ip)), a.nth(n).map(|_| Some(n)));
            prop_assert_eq!(a.overlaps(&b), a.contains(b.network().addr) || b.contains(a.network().addr));
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        }
    }
}
