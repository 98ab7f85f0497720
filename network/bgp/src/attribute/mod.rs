//! Path attributes: all that is said of a route beside its prefix. One set is one value, [`Attributes`]; sets that are
//! equal are one allocation, by [`Interner`].
//!
//! - [`table`]: every attribute that is known, with the flags and lengths it must have, and what a wrong one costs (RFC 7606)
//! - [`read`], [`write`]: bytes to a set and back
//! - [`as_path`], [`community`]: the two that are languages of their own
//! - [`intern`]: one copy of each set
//!
//! Pure. Called by the codec of UPDATE, the routes' tables, the decision and policies.

pub mod as_path;
pub mod community;
pub mod intern;
pub(crate) mod read;
pub mod table;
pub(crate) mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use as_path::AsPath;
pub use community::{Community, ExtendedCommunity, LargeCommunity};
pub use intern::{Interned, Interner};

/// LOCAL_PREF where nobody said one.
pub const DEFAULT_LOCAL_PREFERENCE: u32 = 100;

/// Where the origin AS had a route from (RFC 4271 5.1.1); the first is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Origin {
    /// Inside of the AS.
    #[default]
    Igp = 0,
    /// By the EGP protocol.
    Egp = 1,
    /// By other means.
    Incomplete = 2,
}

/// The router to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// Of IPv4.
    V4(Ipv4Addr),
    /// Of IPv6, which may have a second address, of the link (RFC 2545).
    V6 {
        /// The global address; of an unnumbered peer, its link-local one.
        global: Ipv6Addr,
        /// The address on the link that both share.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// An address alone.
    pub fn new(address: IpAddr) -> NextHop {
        match address {
            IpAddr::V4(v4) => NextHop::V4(v4),
            IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
        }
    }

    /// The first address.
    pub fn address(self) -> IpAddr {
        match self {
            NextHop::V4(v4) => v4.into(),
            NextHop::V6 { global, .. } => global.into(),
        }
    }
}

/// Who aggregated a route (RFC 4271 5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// The AS.
    pub number: u32,
    /// The speaker.
    pub address: Ipv4Addr,
}

/// An attribute that nobody here knows, kept because it is transitive (RFC 4271 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unknown {
    /// With the Partial bit, once a speaker that does not know it has passed it on.
    pub flags: u8,
    /// Its type code.
    pub code: u8,
    /// Its bytes.
    pub value: Box<[u8]>,
}

/// A whole set. Communities are sorted, as their order says nothing; so equal sets are equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, with AS4_PATH put into it.
    pub as_path: AsPath,
    /// NEXT_HOP, or the one in MP_REACH_NLRI.
    pub next_hop: NextHop,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_preference: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, with AS4_AGGREGATOR put into it.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Box<[Community]>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), the nearest first.
    pub cluster_list: Box<[Ipv4Addr]>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: Box<[ExtendedCommunity]>,
    /// LARGE_COMMUNITY (RFC 8092).
    pub large_communities: Box<[LargeCommunity]>,
    /// Only to Customer (RFC 9234).
    pub only_to_customer: Option<u32>,
    /// Those above that somebody has passed on without understanding them: this is told on (RFC 4271 5).
    pub partial: Partial,
    /// What is passed on without being understood, in the order of type codes.
    pub unknown: Box<[Unknown]>,
}

/// Attributes that came with the Partial bit: a bit for each type code of the table that may have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Partial(u64);

impl Partial {
    /// Whether an attribute did.
    pub fn has(self, code: u8) -> bool {
        1_u64.checked_shl(code.into()).is_some_and(|bit| self.0 & bit != 0)
    }

    pub(crate) fn insert(&mut self, code: u8) {
        self.0 |= 1_u64.checked_shl(code.into()).unwrap_or(0);
    }
}

impl Attributes {
    /// Of a route of this AS.
    pub fn local(next_hop: NextHop) -> Attributes {
        Attributes {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop,
            med: None,
            local_preference: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Box::default(),
            originator_id: None,
            cluster_list: Box::default(),
            extended_communities: Box::default(),
            large_communities: Box::default(),
            only_to_customer: None,
            partial: Partial::default(),
            unknown: Box::default(),
        }
    }

    /// Whether it has a community.
    pub fn has(&self, community: Community) -> bool {
        self.communities.binary_search(&community).is_ok()
    }

    /// Puts a community in.
    pub fn add_community(&mut self, community: Community) {
        insert(&mut self.communities, community);
    }

    /// Puts a large community in.
    pub fn add_large_community(&mut self, community: LargeCommunity) {
        insert(&mut self.large_communities, community);
    }

    /// Bytes of memory that its lists take, beside its own.
    pub fn heap(&self) -> usize {
        let unknown: usize = self.unknown.iter().map(|unknown| size_of::<Unknown>() + unknown.value.len()).sum();
        self.as_path.heap()
            + size_of_val(&*self.communities)
            + size_of_val(&*self.cluster_list)
            + size_of_val(&*self.extended_communities)
            + size_of_val(&*self.large_communities)
            + unknown
    }

    /// LOCAL_PREF, or what counts where there is none; also of a route from this AS that should have had one and hasn't,
    /// as BIRD and GoBGP take it (RFC 4271 5.1.5 has no word on that).
    pub fn preference(&self) -> u32 {
        self.local_preference.unwrap_or(DEFAULT_LOCAL_PREFERENCE)
    }
}

/// Puts a value into a sorted list.
fn insert<T: Ord + Copy>(list: &mut Box<[T]>, value: T) {
    if let Err(at) = list.binary_search(&value) {
        let mut longer = list.to_vec();
        longer.insert(at, value);
        *list = longer.into();
    }
}
