//! Address families: which routes a session carries (RFC 4760). Two are carried here, IPv4 and IPv6 unicast; whatever
//! else a peer speaks of stays a pair of numbers, an [`AfiSafi`], and is left alone. Pure. Used everywhere.

use std::fmt;

/// AFI of IPv4.
pub const AFI_IPV4: u16 = 1;
/// AFI of IPv6.
pub const AFI_IPV6: u16 = 2;
/// SAFI of unicast.
pub const SAFI_UNICAST: u8 = 1;

/// An address family as it is written, known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AfiSafi {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The family, where it is one of ours.
    pub fn family(self) -> Option<Family> {
        match (self.afi, self.safi) {
            (AFI_IPV4, SAFI_UNICAST) => Some(Family::Ipv4Unicast),
            (AFI_IPV6, SAFI_UNICAST) => Some(Family::Ipv6Unicast),
            _ => None,
        }
    }
}

/// A family whose routes are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Ipv4Unicast, Family::Ipv6Unicast];

    /// As it is written.
    pub fn wire(self) -> AfiSafi {
        let afi = match self {
            Family::Ipv4Unicast => AFI_IPV4,
            Family::Ipv6Unicast => AFI_IPV6,
        };
        AfiSafi { afi, safi: SAFI_UNICAST }
    }

    /// Bits of an address: 32 or 128.
    pub fn width(self) -> u8 {
        match self {
            Family::Ipv4Unicast => 32,
            Family::Ipv6Unicast => 128,
        }
    }

    /// 0 or 1: for arrays with a place for each family.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The family of a prefix.
    pub fn of(prefix: &meta::Prefix) -> Family {
        if prefix.is_ipv6() { Family::Ipv6Unicast } else { Family::Ipv4Unicast }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4Unicast => "IPv4 unicast",
            Family::Ipv6Unicast => "IPv6 unicast",
        })
    }
}

/// A set of families.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Families(u8);

impl Families {
    /// None.
    pub const NONE: Families = Families(0);
    /// IPv4 unicast alone: what a session without the multiprotocol capability carries.
    pub const IPV4: Families = Families(1);
    /// Both.
    pub const ALL: Families = Families(3);

    /// Whether a family is in it.
    pub fn has(self, family: Family) -> bool {
        self.0 & bit(family) != 0
    }

    /// Puts a family in.
    pub fn insert(&mut self, family: Family) {
        self.0 |= bit(family);
    }

    /// Takes a family out.
    pub fn remove(&mut self, family: Family) {
        self.0 &= !bit(family);
    }

    /// Those in both.
    pub fn and(self, other: Families) -> Families {
        Families(self.0 & other.0)
    }

    /// Those here that are not there.
    pub fn without(self, other: Families) -> Families {
        Families(self.0 & !other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.has(*family))
    }
}

fn bit(family: Family) -> u8 {
    1 << family.index()
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Families {
        let mut set = Families::NONE;
        families.into_iter().for_each(|family| set.insert(family));
        set
    }
}

impl Extend<Family> for Families {
    fn extend<I: IntoIterator<Item = Family>>(&mut self, families: I) {
        families.into_iter().for_each(|family| self.insert(family));
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
