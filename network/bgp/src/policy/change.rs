//! What a rule sets. Pure.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::Route;
use super::pattern::AnyCommunity;
use crate::attribute::{Attributes, NextHop};

/// How often a number may be put before an AS_PATH: more than anybody does, and within one segment.
pub const MAX_PREPEND: u8 = 32;

/// What is changed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Change {
    /// LOCAL_PREF.
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Communities.
    pub communities: CommunityChange,
    /// The next hop.
    pub next_hop: Option<NextHopChange>,
    /// Before the AS_PATH.
    pub prepend: Option<Prepend>,
}

/// What becomes of communities: first all go, where that is said, then some, then others come.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CommunityChange {
    /// All go.
    pub clear: bool,
    /// These go.
    pub remove: Vec<AnyCommunity>,
    /// These come.
    pub add: Vec<AnyCommunity>,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopChange {
    /// This speaker.
    Own,
    /// The neighbour.
    Peer,
    /// This one.
    Address(IpAddr),
}

impl<'de> Deserialize<'de> for NextHopChange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<NextHopChange, D::Error> {
        let text = String::deserialize(from)?;
        match text.as_str() {
            "self" => Ok(NextHopChange::Own),
            "peer" => Ok(NextHopChange::Peer),
            _ => text.parse().map(NextHopChange::Address).map_err(|_| {
                D::Error::custom(format!("next-hop: {text:?} is not \"self\", \"peer\" or an address such as 10.0.0.1"))
            }),
        }
    }
}

/// A number before an AS_PATH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prepend {
    /// Which; our own where none is said.
    #[serde(rename = "as")]
    pub number: Option<u32>,
    /// How often.
    #[serde(default = "once", deserialize_with = "times")]
    pub times: u8,
}

fn once() -> u8 {
    1
}

fn times<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let times = u8::deserialize(from)?;
    let right = (1..=MAX_PREPEND).contains(&times);
    if right {
        Ok(times)
    } else {
        Err(D::Error::custom(format!("times: {times} is not a number from 1 to {MAX_PREPEND}")))
    }
}

impl Change {
    /// Changes a route's attributes.
    pub fn apply(&self, route: &Route<'_>, own: u32, set: &mut Attributes) {
        set.local_preference = self.local_preference.or(set.local_preference);
        set.med = self.med.or(set.med);
        self.communities.apply(set);
        let next_hop = self.next_hop.and_then(|change| match change {
            NextHopChange::Own => route.own_address,
            NextHopChange::Peer => route.peer,
            NextHopChange::Address(address) => Some(address),
        });
        if let Some(address) = next_hop {
            set.next_hop = NextHop::new(address);
        }
        if let Some(prepend) = self.prepend {
            set.as_path = set.as_path.prepend(prepend.number.unwrap_or(own), prepend.times.into());
        }
    }
}

impl CommunityChange {
    fn apply(&self, set: &mut Attributes) {
        if self.clear {
            set.communities = Box::default();
            set.large_communities = Box::default();
        }
        if !self.remove.is_empty() {
            let stays = |community: AnyCommunity| !self.remove.contains(&community);
            set.communities = set.communities.iter().copied().filter(|c| stays(AnyCommunity::Standard(*c))).collect();
            set.large_communities =
                set.large_communities.iter().copied().filter(|c| stays(AnyCommunity::Large(*c))).collect();
        }
        for community in &self.add {
            match community {
                AnyCommunity::Standard(community) => set.add_community(*community),
                AnyCommunity::Large(community) => set.add_large_community(*community),
            }
        }
    }
}
