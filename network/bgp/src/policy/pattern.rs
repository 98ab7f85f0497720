//! What a rule looks at. Every field that is there must fit; of a list, one of its entries. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use meta::Prefix;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::{PeerType, Route, Source};
use crate::attribute::{AsPath, Attributes, Community, LargeCommunity};

/// A field that is text in the file and a value here; an error names the text.
pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// What a route must be.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Pattern {
    /// One of these ranges has it.
    pub prefixes: Vec<PrefixPattern>,
    /// None of these ranges has it.
    pub not_prefixes: Vec<PrefixPattern>,
    /// It has one of these communities.
    pub communities: Vec<AnyCommunity>,
    /// It has none of these.
    pub not_communities: Vec<AnyCommunity>,
    /// Its AS_PATH.
    pub as_path: Option<AsPathPattern>,
    /// It is from, or goes to, one of these neighbours: addresses, or ranges of them.
    pub peers: Vec<PeerPattern>,
    /// That neighbour is of this AS, or of another.
    pub peer_type: Option<PeerType>,
    /// It is from one of these.
    pub source: Vec<Source>,
    /// It goes by one of these interfaces; `*` at the end is any end.
    pub interfaces: Vec<String>,
    /// Its LOCAL_PREF, or what counts without one.
    pub local_preference: Option<Range>,
    /// Its MED; without one it does not fit.
    pub med: Option<Range>,
}

/// A number between two, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
}

impl Range {
    fn has(self, value: u32) -> bool {
        (self.min..=self.max).contains(&value)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Range, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            min: Option<u32>,
            max: Option<u32>,
        }
        let fields = Fields::deserialize(from)?;
        let (min, max) = (fields.min.unwrap_or(0), fields.max.unwrap_or(u32::MAX));
        if min > max {
            return Err(D::Error::custom(format!("min: {min} is more than max: {max}")));
        }
        Ok(Range { min, max })
    }
}

/// Prefixes inside of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixPattern {
    /// It covers them.
    pub prefix: Prefix,
    /// The shortest length.
    pub min: u8,
    /// The longest length.
    pub max: u8,
}

impl PrefixPattern {
    fn has(&self, prefix: &Prefix) -> bool {
        (self.min..=self.max).contains(&prefix.len) && self.prefix.covers(prefix)
    }
}

impl<'de> Deserialize<'de> for PrefixPattern {
    /// `lengths` is the prefix's own length where it isn't there.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<PrefixPattern, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            #[serde(deserialize_with = "parsed")]
            prefix: Prefix,
            lengths: Option<Range>,
        }
        let Fields { prefix, lengths } = Fields::deserialize(from)?;
        let width = u32::from(prefix.width());
        let own = u32::from(prefix.len);
        let lengths = lengths.map_or(Range { min: own, max: own }, |l| Range { min: l.min.max(own), max: l.max });
        let most = if lengths.max == u32::MAX { width } else { lengths.max };
        if prefix.network() != prefix {
            return Err(D::Error::custom(format!("prefix: {prefix} has bits behind its length: {}", prefix.network())));
        }
        if most > width || lengths.min > most {
            let told =
                format!("lengths: {} to {most} are no lengths inside of {prefix}: {own} to {width}", lengths.min);
            return Err(D::Error::custom(told));
        }
        let byte = |length: u32| u8::try_from(length).unwrap_or(u8::MAX);
        Ok(PrefixPattern { prefix, min: byte(lengths.min), max: byte(most) })
    }
}

/// A community of 32 or of 96 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyCommunity {
    /// `64512:1`, or a name.
    Standard(Community),
    /// `64512:1:2`.
    Large(LargeCommunity),
}

impl AnyCommunity {
    fn is_in(&self, set: &Attributes) -> bool {
        match self {
            AnyCommunity::Standard(community) => set.has(*community),
            AnyCommunity::Large(community) => set.large_communities.binary_search(community).is_ok(),
        }
    }
}

impl<'de> Deserialize<'de> for AnyCommunity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<AnyCommunity, D::Error> {
        let text = String::deserialize(from)?;
        let large = text.parse().map(AnyCommunity::Large);
        large.or_else(|_| text.parse().map(AnyCommunity::Standard)).map_err(D::Error::custom)
    }
}

/// A neighbour's address, or a range that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPattern(pub Prefix);

impl<'de> Deserialize<'de> for PeerPattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<PeerPattern, D::Error> {
        let text = String::deserialize(from)?;
        let address = text.parse::<IpAddr>().map(Prefix::host);
        address.or_else(|_| text.parse()).map(PeerPattern).map_err(D::Error::custom)
    }
}

/// What an AS_PATH must be; all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AsPathPattern {
    /// It begins so.
    pub starts_with: Vec<u32>,
    /// It ends with this number.
    pub origin: Option<u32>,
    /// This number is in it.
    pub contains: Option<u32>,
    /// Its length.
    pub length: Option<Range>,
}

impl AsPathPattern {
    fn fits(&self, path: &AsPath) -> bool {
        let mut numbers = path.numbers();
        self.starts_with.iter().all(|number| numbers.next() == Some(*number))
            && self.origin.is_none_or(|origin| path.origin() == Some(origin))
            && self.contains.is_none_or(|number| path.count(number) > 0)
            && self.length.is_none_or(|range| range.has(u32::try_from(path.length()).unwrap_or(u32::MAX)))
    }
}

impl Pattern {
    /// Whether a route is meant.
    pub fn fits(&self, route: &Route<'_>, set: &Attributes) -> bool {
        let one_of = |list: &[PrefixPattern]| list.iter().any(|pattern| pattern.has(&route.prefix));
        let has = |list: &[AnyCommunity]| list.iter().any(|community| community.is_in(set));
        (self.source.is_empty() || self.source.contains(&route.source))
            && (self.prefixes.is_empty() || one_of(&self.prefixes))
            && !one_of(&self.not_prefixes)
            && (self.communities.is_empty() || has(&self.communities))
            && !has(&self.not_communities)
            && self.as_path.as_ref().is_none_or(|pattern| pattern.fits(&set.as_path))
            && (self.peers.is_empty() || route.peer.is_some_and(|peer| self.peers.iter().any(|p| p.0.contains(peer))))
            && self.peer_type.is_none_or(|wanted| route.peer_type == Some(wanted))
            && (self.interfaces.is_empty() || route.interface.is_some_and(|name| self.interface(name)))
            && self.local_preference.is_none_or(|range| range.has(set.preference()))
            && self.med.is_none_or(|range| set.med.is_some_and(|med| range.has(med)))
    }

    fn interface(&self, name: &str) -> bool {
        self.interfaces.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == pattern,
        })
    }

    /// Whether it looks at nothing but attributes, the source and the neighbour.
    pub(super) fn is_of_attributes(&self) -> bool {
        self.prefixes.is_empty() && self.not_prefixes.is_empty() && self.interfaces.is_empty()
    }
}
