//! Address ranges in CIDR notation, for what node-ipam gives out. IPv4 and IPv6 in one 128-bit type.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: base address (host bits zero) and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    base: u128,
    pub prefix: u8,
    pub v6: bool,
}

impl Cidr {
    fn width(v6: bool) -> u8 {
        if v6 { 128 } else { 32 }
    }

    fn size_bits(self) -> u32 {
        u32::from(Self::width(self.v6) - self.prefix)
    }

    pub fn overlaps(self, other: Cidr) -> bool {
        let bits = self.size_bits().max(other.size_bits());
        let top = |base: u128| base.checked_shr(bits).unwrap_or(0);
        self.v6 == other.v6 && top(self.base) == top(other.base)
    }

    /// How many networks of the given prefix fit.
    pub fn subnets(self, prefix: u8) -> u128 {
        prefix.checked_sub(self.prefix).map_or(0, |bits| 1u128.checked_shl(bits.into()).unwrap_or(u128::MAX))
    }

    /// The `n`-th network of the given prefix.
    pub fn subnet(self, prefix: u8, n: u128) -> Cidr {
        let step = u32::from(Self::width(self.v6) - prefix);
        Cidr { base: self.base + (n << step), prefix, v6: self.v6 }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let wrong = || format!("{text:?} is no CIDR such as 10.244.0.0/16");
        let (address, prefix) = text.trim().split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let (bits, v6) = match address {
            IpAddr::V4(a) => (u128::from(u32::from(a)), false),
            IpAddr::V6(a) => (u128::from(a), true),
        };
        if prefix > Self::width(v6) {
            return Err(wrong());
        }
        let host = u32::from(Self::width(v6) - prefix);
        let base = bits.checked_shr(host).unwrap_or(0).checked_shl(host).unwrap_or(0);
        Ok(Cidr { base, prefix, v6 })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.v6 {
            write!(f, "{}/{}", Ipv6Addr::from(self.base), self.prefix)
        } else {
            write!(f, "{}/{}", Ipv4Addr::from(self.base as u32), self.prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_come_in_order_and_overlap_only_themselves() {
        let all: Cidr = "10.244.0.0/16".parse().unwrap();
        assert_eq!(all.subnets(24), 256);
        assert_eq!(all.subnet(24, 255).to_string(), "10.244.255.0/24");
        assert!(all.subnet(24, 1).overlaps(all) && !all.subnet(24, 1).overlaps(all.subnet(24, 2)));
        let six: Cidr = "fd00:10::/48".parse().unwrap();
        assert_eq!(six.subnet(64, 2).to_string(), "fd00:10:0:2::/64");
        assert!(!six.overlaps(all) && "10.1.2.3".parse::<Cidr>().is_err() && "10.1.2.3/33".parse::<Cidr>().is_err());
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().overlaps(all));
    }
}
