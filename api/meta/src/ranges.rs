//! What a network has addresses of: one range, or one of each family, the primary first (`10.42.0.0/16,fd42::/56`). Pods,
//! Services, a node's share and a bridge all mean this one. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Prefix;

/// See the module's head. Host bits are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ranges {
    primary: Prefix,
    /// Of the other family.
    second: Option<Prefix>,
}

/// Why a list of ranges is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    /// A part of the list.
    #[error("{0:?} is not an address range such as 10.42.0.0/16 or fd00:42::/56")]
    NotARange(String),
    /// More than there are families.
    #[error("{0} ranges are too many: say one, or one of IPv4 and one of IPv6")]
    TooMany(usize),
    /// No pod has two addresses of one family.
    #[error("{0} and {1} are of one family: say one range, or one of IPv4 and one of IPv6")]
    OneFamily(Prefix, Prefix),
}

impl Ranges {
    /// The ranges in this order: the first is the primary.
    pub fn of(list: &[Prefix]) -> Result<Ranges, RangesError> {
        match list {
            [] => Err(RangesError::NotARange(String::new())),
            [one] => Ok((*one).into()),
            [one, other] if one.is_ipv6() == other.is_ipv6() => Err(RangesError::OneFamily(*one, *other)),
            [one, other] => Ok(Ranges { primary: one.network(), second: Some(other.network()) }),
            more => Err(RangesError::TooMany(more.len())),
        }
    }

    /// The range of the family that comes first wherever one must.
    pub fn primary(&self) -> Prefix {
        self.primary
    }

    /// The range of the other family.
    pub fn second(&self) -> Option<Prefix> {
        self.second
    }

    /// Each range, the primary first.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> + use<> {
        std::iter::once(self.primary).chain(self.second)
    }

    /// The range of a family.
    pub fn family(&self, v6: bool) -> Option<Prefix> {
        self.iter().find(|range| range.is_ipv6() == v6)
    }

    /// Whether an address is in one of them.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.iter().any(|range| range.contains(addr))
    }

    /// Whether the families of both are the same, in the same order.
    pub fn is_like(&self, other: &Ranges) -> bool {
        self.iter().map(|range| range.is_ipv6()).eq(other.iter().map(|range| range.is_ipv6()))
    }

    /// Two ranges that have addresses in common.
    pub fn overlap(&self, other: &Ranges) -> Option<(Prefix, Prefix)> {
        self.iter().flat_map(|a| other.iter().map(move |b| (a, b))).find(|(a, b)| a.overlaps(b))
    }
}

impl From<Prefix> for Ranges {
    fn from(one: Prefix) -> Ranges {
        Ranges { primary: one.network(), second: None }
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.primary)?;
        self.second.map_or(Ok(()), |second| write!(f, ",{second}"))
    }
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Ranges, RangesError> {
        let one = |part: &str| part.trim().parse().map_err(|_| RangesError::NotARange(part.trim().to_owned()));
        Ranges::of(&text.split(',').map(one).collect::<Result<Vec<Prefix>, _>>()?)
    }
}

impl Serialize for Ranges {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Ranges, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> Ranges {
        text.parse().unwrap()
    }

    #[test]
    fn one_range_or_one_of_each_family_in_the_order_in_which_they_are_said() {
        let both = ranges("10.42.3.4/16, fd00:42::7/56");
        assert_eq!(both.to_string(), "10.42.0.0/16,fd00:42::/56");
        assert_eq!(both, ranges(&both.to_string()));
        assert_eq!((both.family(true), both.primary()), (both.second(), ranges("10.42.0.0/16").primary()));
        assert!(both.contains("fd00:42::1".parse().unwrap()) && !both.contains("10.43.0.1".parse().unwrap()));
        assert!(
            both.is_like(&ranges("10.43.0.0/16,fd00:43::/112")) && !both.is_like(&ranges("fd00:43::/112,10.43.0.0/16"))
        );
        assert!(!both.is_like(&ranges("10.43.0.0/16")));
        let meets = both.overlap(&ranges("10.43.0.0/16,fd00:42:0:100::/64"));
        assert_eq!(meets, None, "beside it");
        let meets = both.overlap(&ranges("10.43.0.0/16,fd00:42:0:f::/64"));
        assert_eq!(meets.map(|(_, b)| b.to_string()).as_deref(), Some("fd00:42:0:f::/64"));
        assert_eq!(serde_json::to_string(&ranges("fd00::/48")).unwrap(), "\"fd00::/48\"");
    }

    #[test]
    fn what_is_no_such_list_is_told_with_what_would_be_right() {
        let said = |text: &str| text.parse::<Ranges>().unwrap_err().to_string();
        assert!(said("10.42.0.0/16,").starts_with("\"\" is not an address range such as"));
        assert!(said("10.42.0.0/16,10.44.0.0/16").starts_with("10.42.0.0/16 and 10.44.0.0/16 are of one family: say"));
        assert!(said("10.42.0.0/16,fd00::/48,fd01::/48").starts_with("3 ranges are too many: say one, or one of IPv4"));
    }
}
