//! What is configured of the kernel's side, what the speaker says to it, and what it says. Data. Used by all of `kernel`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use linux::netlink::{RouteKind, TABLE_MAIN};
use meta::Prefix;

use super::wish::Wish;

/// The number by which the kernel's tables tell routes of this speaker from others: `ip route show proto 71`. Not BGP's
/// own, 186: FRR's zebra takes routes with that number for its own and removes them when it starts, and BIRD's 12 is
/// BIRD's. Not [`linux::netlink::PROTOCOL`] either: flannel's routes in the same table are no business of this speaker.
pub const PROTOCOL: u8 = 71;

/// The metric of a route where nobody said one: below an administrator's, as BIRD's.
pub const METRIC: u32 = 32;

/// The table of the VRF, which is asked for at the start. No table has this number.
pub const OF_VRF: u32 = 0;

/// Which routes are whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The VRF whose links and addresses these are; none is all that are in no VRF.
    pub vrf: Option<String>,
    /// The table where routes are put, and where those of other protocols are learned from.
    pub table: u32,
    /// The table that says where next hops are. The same one, unless `table` is one that rules of an administrator lead to:
    /// such has no routes to the links.
    pub ways: u32,
    /// See [`PROTOCOL`]. Two speakers with one table need two.
    pub protocol: u8,
    /// How often everything is listed, beside the news of each change.
    pub scan: Duration,
    /// How long routes of an earlier process stay when nobody says [`Command::Loaded`].
    pub keep: Duration,
    /// Whether routes of other protocols are told.
    pub learn: bool,
    /// Whether routes are put there. If not, none is ours: one with that number is another speaker's on the same host.
    pub write: bool,
}

impl Config {
    /// Whether this number is of routes of ours.
    pub fn is_ours(&self, protocol: u8) -> bool {
        self.write && protocol == self.protocol
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vrf: None,
            table: TABLE_MAIN,
            ways: TABLE_MAIN,
            protocol: PROTOCOL,
            scan: Duration::from_secs(60),
            // BIRD's longest wait for End-of-RIB.
            keep: Duration::from_secs(240),
            learn: true,
            write: true,
        }
    }
}

/// What the speaker says.
#[derive(Clone, Debug)]
pub enum Command {
    /// These prefixes shall have these routes, or none.
    Want(Vec<(Prefix, Option<Arc<Wish>>)>),
    /// The way to this next hop shall be told by [`Event::NextHop`], now and whenever it changes.
    Track(IpAddr),
    /// That is no longer of interest.
    Forget(IpAddr),
    /// All that an earlier process had is wanted again by now, or never will be: what is left of it goes.
    Loaded,
    /// All routes of ours go: the end of a speaker that shall leave nothing.
    Clear,
}

/// What the kernel says. Each tells the state of one thing; when several states follow one another faster than they are
/// taken, the last is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything that was there at the start has been told.
    Listed,
    /// The metric of the way to a next hop that is tracked: 0 on a link of this host, else that of the route. None when
    /// there is no way.
    NextHop(IpAddr, Option<u32>),
    /// The best route of another protocol to a prefix, or that there is none any more. Without those that the kernel makes
    /// with addresses.
    Learned(Prefix, Option<Learned>),
    /// The links that are up and have an address of this range; none when it is gone. Without loopback and link-local
    /// ranges.
    Direct(Prefix, Vec<String>),
    /// A link: its number, and whether packets can go there. When it is gone, they can't.
    Link {
        /// Its name.
        name: String,
        /// Its number.
        index: u32,
        /// Up, and somebody at the other end.
        up: bool,
    },
}

/// A route of another protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Whose: 4 an administrator's, 3 one that nobody named, …
    pub protocol: u8,
    /// The lowest of those to the prefix.
    pub metric: u32,
    /// What becomes of packets.
    pub kind: RouteKind,
    /// Routers and links.
    pub hops: Vec<LearnedHop>,
}

/// Where a route of another protocol leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedHop {
    /// None: the prefix is on the link.
    pub gateway: Option<IpAddr>,
    /// The link's name.
    pub link: String,
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Prefixes that shall have a route.
    pub wanted: usize,
    /// Routes of ours in the kernel.
    pub there: usize,
    /// Of those, ones of an earlier process that nobody has wanted yet.
    pub kept: usize,
    /// Wanted routes that the kernel refused, or that give way to another protocol's.
    pub refused: usize,
    /// What it said to the last of those.
    pub refusal: Option<String>,
}
