//! The ranges of pods and Services as flags and files write them: what a [`Prefix`] must be to be one. Pure.

use meta::Prefix;
use serde::{Deserialize, Deserializer};

/// A larger range takes addresses of other networks; a smaller one has not enough for a node.
const LENGTHS: std::ops::RangeInclusive<u8> = 8..=24;

/// The range that a flag says, its host bits cleared.
pub fn range(text: &str) -> Result<Prefix, String> {
    let fits = |range: &Prefix| !range.is_ipv6() && LENGTHS.contains(&range.len);
    let range = text.parse().ok().filter(fits).ok_or_else(|| {
        let (longest, shortest) = (LENGTHS.start(), LENGTHS.end());
        format!("{text:?} is not an IPv4 range between /{longest} and /{shortest}: write it like 10.42.0.0/16")
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
    }
}
