//! The ranges of pods and Services as flags and files write them: what a [`Prefix`] must be to be one. Pure.

use meta::Prefix;
use serde::{Deserialize, Deserializer};

/// A larger range takes addresses of other networks; a smaller one has not enough for a node.
const LENGTHS: std::ops::RangeInclusive<u8> = 8..=24;

/// The same of the link between a host's nodes.
const LINK_LENGTHS: std::ops::RangeInclusive<u8> = 16..=29;

/// The range that a flag says, its host bits cleared.
pub fn range(text: &str) -> Result<Prefix, String> {
    between(text, &LENGTHS, "10.42.0.0/16")
}

/// The same of the link between a host's nodes.
pub fn link_range(text: &str) -> Result<Prefix, String> {
    between(text, &LINK_LENGTHS, "10.202.0.0/24")
}

fn between(text: &str, lengths: &std::ops::RangeInclusive<u8>, like: &str) -> Result<Prefix, String> {
    let fits = |range: &Prefix| !range.is_ipv6() && lengths.contains(&range.len);
    let range = text.parse().ok().filter(fits).ok_or_else(|| {
        let (longest, shortest) = (lengths.start(), lengths.end());
        format!("{text:?} is not an IPv4 range between /{longest} and /{shortest}: write it like {like}")
    })?;
    Ok(range.network())
}

/// The same of a document.
pub fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Prefix, D::Error> {
    range(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_what_is_wrong() {
        assert_eq!(range("10.42.3.4/16").map(|c| c.to_string()), Ok("10.42.0.0/16".to_owned()));
        assert!(range("10.42.0.0").unwrap_err().contains("like 10.42.0.0/16"));
        assert!(range("fd00::/16").unwrap_err().contains("IPv4 range"));
        assert!(range("10.42.0.0/31").unwrap_err().contains("between /8 and /24"));
        assert_eq!(link_range("10.9.8.7/28").map(|c| c.to_string()), Ok("10.9.8.0/28".to_owned()));
        assert!(link_range("10.0.0.0/8").unwrap_err().contains("like 10.202.0.0/24"));
    }
}
