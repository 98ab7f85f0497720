//! Communities: marks on a route by which policies know it (RFC 1997 of 32 bits, RFC 4360 of 64, RFC 8092 of 96), as
//! text and numbers. Pure. Called by the codec, policies and whoever shows routes.

use std::fmt;
use std::str::FromStr;

/// A community of 32 bits, `64512:100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Community(pub u32);

impl Community {
    /// Traffic for the prefix is about to go: prefer any other way (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// Kept beyond its session's end (RFC 9494).
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// Not to be kept beyond its session's end (RFC 9494).
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// Drop the traffic (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xffff_029a);
    /// Not out of this AS or confederation (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// To nobody (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// Not out of this AS, even inside a confederation (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);
}

/// The well-known ones and their names.
const NAMES: [(Community, &str); 7] = [
    (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
    (Community::LLGR_STALE, "llgr-stale"),
    (Community::NO_LLGR, "no-llgr"),
    (Community::BLACKHOLE, "blackhole"),
    (Community::NO_EXPORT, "no-export"),
    (Community::NO_ADVERTISE, "no-advertise"),
    (Community::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
];

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(community, _)| community == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

/// Text that is no community.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseCommunityError(pub String);

impl fmt::Display for ParseCommunityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
        write!(f, "{:?} is not a community such as 64512:100 or 64512:1:2, nor one of {}", self.0, names.join(", "))
    }
}

impl std::error::Error for ParseCommunityError {}

impl FromStr for Community {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Community, ParseCommunityError> {
        let named = NAMES.iter().find(|(_, name)| *name == text).map(|(community, _)| *community);
        let numbers = || {
            let (high, low) = text.split_once(':')?;
            let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
            Some(Community(u32::from(high) << 16 | u32::from(low)))
        };
        named.or_else(numbers).ok_or_else(|| ParseCommunityError(text.to_owned()))
    }
}

/// A community of 64 bits: a type, a subtype and what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtendedCommunity(pub u64);

impl ExtendedCommunity {
    /// Whether it goes from one AS to the next.
    pub fn is_transitive(self) -> bool {
        self.0 >> 62 & 1 == 0
    }
}

impl fmt::Display for ExtendedCommunity {
    /// `rt:64512:100` and `ro:…` of each of the three forms; others as hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.to_be_bytes();
        let [_, subtype, a, b, c, d, e, g] = bytes;
        let name = match subtype {
            2 => "rt",
            3 => "ro",
            _ => return write!(f, "0x{:016x}", self.0),
        };
        match bytes[0] & 0x3f {
            0 => write!(f, "{name}:{}:{}", u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, g])),
            1 => write!(f, "{name}:{a}.{b}.{c}.{d}:{}", u16::from_be_bytes([e, g])),
            2 => write!(f, "{name}:{}:{}", u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, g])),
            _ => write!(f, "0x{:016x}", self.0),
        }
    }
}

/// A community of 96 bits, `64512:1:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LargeCommunity {
    /// The AS that says what the others mean.
    pub global: u32,
    /// The first of two numbers.
    pub local1: u32,
    /// The second.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<LargeCommunity, ParseCommunityError> {
        let numbers: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some([global, local1, local2]) => Ok(LargeCommunity { global: *global, local1: *local1, local2: *local2 }),
            _ => Err(ParseCommunityError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_numbers_are_the_same() {
        for text in ["64512:100", "no-export", "0:0", "65535:65535", "graceful-shutdown"] {
            assert_eq!(text.parse::<Community>().map(|c| c.to_string()), Ok(text.to_owned()));
        }
        for wrong in ["", "1", "65536:1", "1:2:3", "no_export", "-1:2"] {
            assert!(wrong.parse::<Community>().is_err(), "{wrong}");
        }
        assert_eq!("1:2:3".parse::<LargeCommunity>().map(|c| c.to_string()), Ok("1:2:3".to_owned()));
        assert!("1:2".parse::<LargeCommunity>().is_err() && "1:2:3:4".parse::<LargeCommunity>().is_err());
    }

    #[test]
    fn targets_of_routes_read_as_people_write_them() {
        let shown = |value: u64| ExtendedCommunity(value).to_string();
        assert_eq!(shown(0x0002_fc00_0000_0064), "rt:64512:100");
        assert_eq!(shown(0x0102_0a00_0001_0007), "rt:10.0.0.1:7");
        assert_eq!(shown(0x0203_0001_1170_0001), "ro:70000:1");
        assert_eq!(shown(0x4301_0000_0000_0001), "0x4301000000000001");
        assert!(!ExtendedCommunity(0x4301_0000_0000_0001).is_transitive());
    }
}
