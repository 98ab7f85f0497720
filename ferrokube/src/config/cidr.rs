//! IPv4 ranges as flags and files write them. Pure. Of pods and Services; called wherever their addresses are given out.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// An IPv4 range, written `address/bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub bits: u8,
}

impl Cidr {
    /// The `n`th address of the range.
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) + n)
    }

    /// The last address of the range.
    pub fn last(&self) -> Ipv4Addr {
        self.nth(u32::MAX.checked_shr(self.bits.into()).unwrap_or(0))
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.overlaps(&Cidr { address, bits: 32 })
    }

    pub fn overlaps(&self, other: &Cidr) -> bool {
        let bits = self.bits.min(other.bits);
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(s: &str) -> Result<Cidr, String> {
        let wrong = || format!("{s:?} is not an IPv4 range: write it like 10.42.0.0/16");
        let (address, bits) = s.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().map_err(|_| wrong())?;
        if !(8..=24).contains(&bits) {
            return Err(format!("{s:?}: the range must be between /8 and /24"));
        }
        let mask = u32::MAX << (32 - u32::from(bits));
        Ok(Cidr { address: Ipv4Addr::from(u32::from(address) & mask), bits })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Cidr, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_what_is_wrong() {
        assert_eq!("10.42.3.4/16".parse::<Cidr>().map(|c| c.to_string()), Ok("10.42.0.0/16".to_owned()));
        assert!("10.42.0.0".parse::<Cidr>().unwrap_err().contains("like 10.42.0.0/16"));
        assert!("10.42.0.0/31".parse::<Cidr>().unwrap_err().contains("between /8 and /24"));
        assert_eq!("10.43.0.0/16".parse::<Cidr>().map(|c| c.nth(10).to_string()), Ok("10.43.0.10".to_owned()));
        assert_eq!("10.43.0.0/16".parse::<Cidr>().map(|c| c.last().to_string()), Ok("10.43.255.255".to_owned()));
    }
}
