//! NLRI: prefixes as UPDATE lists them, a length in bits and as many bytes as that needs, each behind a path identifier
//! where both sides can (RFC 7911). The list is looked at once, and then walked where it lies. Pure. Called by
//! [`super::update`] and [`super::pack`].

use std::net::{Ipv4Addr, Ipv6Addr};

use meta::Prefix;

use super::Coding;
use crate::family::Family;

/// A prefix and which of its paths is meant; without add-path the identifier is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nlri {
    /// Host bits are clear.
    pub prefix: Prefix,
    /// RFC 7911.
    pub path_id: u32,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Nlri {
        Nlri { prefix, path_id: 0 }
    }
}

/// Prefixes of a message that have been looked at.
#[derive(Clone, Copy, Debug)]
pub struct Prefixes<'a> {
    family: Family,
    add_path: bool,
    bytes: &'a [u8],
}

impl<'a> Prefixes<'a> {
    /// None when one is longer than an address, or ends beyond the list.
    pub fn read(bytes: &'a [u8], family: Family, coding: &Coding) -> Option<Prefixes<'a>> {
        let list = Prefixes { family, add_path: coding.add_path.has(family), bytes };
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = list.next(rest)?;
        }
        Some(list)
    }

    /// Which family's.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = Nlri> + use<'a> {
        let (list, mut rest) = (*self, self.bytes);
        std::iter::from_fn(move || {
            let (nlri, after) = list.next(rest)?;
            rest = after;
            Some(nlri)
        })
    }

    fn next(&self, bytes: &'a [u8]) -> Option<(Nlri, &'a [u8])> {
        let (path_id, rest) = match self.add_path {
            true => bytes.split_first_chunk().map(|(id, rest)| (u32::from_be_bytes(*id), rest))?,
            false => (0, bytes),
        };
        let (length, rest) = rest.split_first()?;
        if *length > self.family.width() {
            return None;
        }
        let (address, rest) = rest.split_at_checked(usize::from(length.div_ceil(8)))?;
        let prefix = match self.family {
            Family::Ipv4Unicast => Prefix::new(Ipv4Addr::from(masked::<4>(address, *length)), *length),
            Family::Ipv6Unicast => Prefix::new(Ipv6Addr::from(masked::<16>(address, *length)), *length),
        };
        Some((Nlri { prefix, path_id }, rest))
    }
}

/// The address with the bits behind its length cleared, which may be anything (RFC 4271 4.3).
fn masked<const N: usize>(bytes: &[u8], length: u8) -> [u8; N] {
    let mut address = [0; N];
    for (place, byte) in address.iter_mut().zip(bytes) {
        *place = *byte;
    }
    if let (Some(last), odd @ 1..) = (address.get_mut(usize::from(length / 8)), length % 8) {
        *last &= 0xff << (8 - odd);
    }
    address
}

/// Writes a prefix.
pub(crate) fn write(nlri: &Nlri, add_path: bool, out: &mut Vec<u8>) {
    if add_path {
        out.extend_from_slice(&nlri.path_id.to_be_bytes());
    }
    let length = nlri.prefix.len.min(nlri.prefix.width());
    out.push(length);
    let bytes = usize::from(length.div_ceil(8));
    match nlri.prefix.addr {
        std::net::IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()[..bytes]),
        std::net::IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()[..bytes]),
    }
}

/// The longest that one is written.
pub(crate) const LONGEST: usize = 4 + 1 + 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Families;

    fn read(bytes: &[u8], family: Family, coding: &Coding) -> Option<Vec<Nlri>> {
        Some(Prefixes::read(bytes, family, coding)?.iter().collect())
    }

    #[test]
    fn prefixes_of_all_lengths_come_back() {
        for (family, address) in [(Family::Ipv4Unicast, "203.0.113.255"), (Family::Ipv6Unicast, "2001:db8::ff")] {
            for add_path in [Families::NONE, Families::ALL] {
                let coding = Coding { add_path, ..Coding::default() };
                let all: Vec<Nlri> = (0..=family.width())
                    .map(|len| {
                        let prefix = Prefix::new(address.parse::<std::net::IpAddr>().expect("an address"), len);
                        let path_id = if add_path.has(family) { u32::from(len) << 20 } else { 0 };
                        Nlri { prefix: prefix.network(), path_id }
                    })
                    .collect();
                let mut bytes = Vec::new();
                all.iter().for_each(|nlri| write(nlri, add_path.has(family), &mut bytes));
                assert_eq!(read(&bytes, family, &coding), Some(all));
                assert!(read(&bytes[..bytes.len() - 1], family, &coding).is_none(), "cut off");
            }
        }
    }

    #[test]
    fn bits_behind_the_length_are_nothing_and_lengths_have_an_end() {
        let coding = Coding::default();
        let found = read(&[9, 10, 0xff], Family::Ipv4Unicast, &coding).expect("one");
        assert_eq!(found[0].prefix.to_string(), "10.128.0.0/9");
        assert!(read(&[33, 1, 2, 3, 4, 5], Family::Ipv4Unicast, &coding).is_none());
        assert!(read(&[129], Family::Ipv6Unicast, &coding).is_none());
    }
}
