//! Answers as data: what `-o json` prints and tables are made of. Pure. Made by the loop, read by [`super::client`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use meta::Prefix;
use serde::{Deserialize, Serialize};

use crate::config::peering::{NONE_NAMED, is_of_link};

/// How it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The identifier.
    pub router_id: Ipv4Addr,
    /// The AS.
    #[serde(rename = "as")]
    pub number: u32,
    /// Of the cluster that is reflected for.
    pub cluster_id: Ipv4Addr,
    /// The VRF in which it is.
    #[serde(default)]
    pub vrf: Option<String>,
    /// Since when it runs.
    pub uptime_seconds: u64,
    /// Where neighbours reach it.
    pub listening: Vec<SocketAddr>,
    /// How many neighbours there are, and have a session.
    pub neighbors: usize,
    /// Of these.
    pub established: usize,
    /// Prefixes of each family.
    pub prefixes: Families<usize>,
    /// Sets of attributes that they share.
    pub attribute_sets: usize,
    /// After a restart nothing is decided before all has been heard.
    pub waiting_for_neighbors: bool,
    /// The kernel's side, where it is used.
    pub kernel: Option<KernelView>,
}

/// The kernel's side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelView {
    /// Prefixes that shall have a route.
    pub wanted: usize,
    /// Routes of ours there.
    pub there: usize,
    /// Of those, ones of an earlier process.
    pub kept: usize,
    /// That the kernel refused, or that give way to others'.
    pub refused: usize,
    /// What it said to the last of those.
    pub refusal: Option<String>,
}

/// One thing of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Families<T> {
    /// Of IPv4.
    pub ipv4: T,
    /// Of IPv6.
    pub ipv6: T,
}

impl<T> Families<T> {
    /// By the families' places.
    pub fn new([ipv4, ipv6]: [T; 2]) -> Families<T> {
        Families { ipv4, ipv6 }
    }
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeighborView {
    /// Where he is; `::` of an unnumbered one as long as he has not been found.
    pub address: IpAddr,
    /// By which link.
    pub interface: Option<String>,
    /// For people.
    pub description: String,
    /// His group.
    pub group: Option<String>,
    /// The range by which he was let in.
    pub range: Option<Prefix>,
    /// His AS: as he said, or as is wanted; none where any other than ours will do and he has not said.
    #[serde(rename = "as")]
    pub number: Option<u32>,
    /// As the file has it: a number, `internal` or `external`.
    pub remote_as: String,
    /// RFC 4271's word.
    pub state: String,
    /// Whether there is to be a session.
    pub enabled: bool,
    /// For how long he has a session, or none.
    pub since_seconds: u64,
    /// How often his session came.
    pub sessions: u64,
    /// His identifier.
    pub router_id: Option<Ipv4Addr>,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// His.
    pub remote: Option<SocketAddr>,
    /// The agreed one.
    pub hold_time_seconds: Option<u64>,
    /// What was agreed on.
    pub capabilities: Vec<String>,
    /// Prefixes, with add-path paths, that he has told: those that the import filter refuses, too.
    pub received: Families<u32>,
    /// Prefixes that he is yet to be told.
    pub waiting: Families<usize>,
    /// Families of which he has told all.
    pub end_of_rib: Vec<String>,
    /// From him.
    pub messages_received: Messages,
    /// To him.
    pub messages_sent: Messages,
    /// Updates of his with an error that cost no session.
    pub faults: u64,
    /// Routes of his that were not kept: too many paths, or too long.
    pub left_out: u64,
    /// How often there was no room for a next hop of his: routes by it are not used.
    #[serde(default)]
    pub next_hops_left_out: u64,
    /// A client of this reflector.
    pub client: bool,
    /// What he tells goes through this.
    pub import: String,
    /// What he is told goes through this.
    pub export: String,
    /// Why the last session or attempt ended.
    pub last_error: Option<String>,
    /// How long ago that was.
    pub last_error_seconds: Option<u64>,
    /// Without a session: what comes next.
    #[serde(default)]
    pub next: Option<String>,
    /// Whether he is there, by BFD, in RFC 5880's word.
    pub bfd: Option<String>,
}

impl NeighborView {
    /// By which people know him: of an address of a link with the link, which is all there is of one who is yet to be found.
    pub fn name(&self) -> String {
        match &self.interface {
            Some(interface) if self.address.is_unspecified() => interface.clone(),
            Some(interface) if is_of_link(self.address) => format!("{}%{interface}", self.address),
            _ => self.address.to_string(),
        }
    }

    /// Why there is no session, or why nothing comes of the one that is there; empty where all is well.
    pub fn reason(&self) -> String {
        if self.state != "Established" {
            return self.last_error.clone().unwrap_or_default();
        }
        without_filter(&self.import, &self.export).unwrap_or_default().to_owned()
    }
}

/// What does not flow for want of a filter, by the names of those for what comes and what goes.
pub fn without_filter(import: &str, export: &str) -> Option<&'static str> {
    match (import == NONE_NAMED, export == NONE_NAMED) {
        (true, true) => Some("no filter: nothing is taken or told"),
        (true, false) => Some("no import filter: nothing is taken"),
        (false, true) => Some("no export filter: nothing is told"),
        (false, false) => None,
    }
}

/// Messages by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are RFC 4271's")]
pub struct Messages {
    pub open: u64,
    pub update: u64,
    pub notification: u64,
    pub keepalive: u64,
    pub route_refresh: u64,
}

impl From<[u64; 5]> for Messages {
    fn from([open, update, notification, keepalive, route_refresh]: [u64; 5]) -> Messages {
        Messages { open, update, notification, keepalive, route_refresh }
    }
}

/// A prefix and its paths, the best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// Where it leads.
    pub prefix: Prefix,
    /// The ways there.
    pub paths: Vec<PathView>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathView {
    /// The neighbour who told it; none of this host's own.
    pub neighbor: Option<IpAddr>,
    /// `static`, `direct`, `kernel`, `internal` or `external`.
    pub source: String,
    /// By which link.
    pub interface: Option<String>,
    /// Packets go this way.
    pub used: bool,
    /// It is the best.
    pub best: bool,
    /// The step that chose it, or at which it lost, or why it is none.
    pub why: String,
    /// It is no candidate.
    pub refused: bool,
    /// Kept over the end of its session.
    pub stale: bool,
    /// Kept beyond, as the last resort.
    pub long_lived: bool,
    /// Since when it is as it is.
    pub age_seconds: u64,
    /// The neighbour's number of it (RFC 7911).
    pub path_id: u32,
    /// Its attributes: as they are used, or as they were told where it is refused.
    #[serde(flatten)]
    pub attributes: AttributesView,
}

/// Attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributesView {
    /// The next hop; none of this host's own.
    pub next_hop: Option<IpAddr>,
    /// That of the link.
    pub next_hop_link_local: Option<Ipv6Addr>,
    /// AS_PATH.
    pub as_path: String,
    /// ORIGIN.
    pub origin: String,
    /// LOCAL_PREF.
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// All kinds.
    pub communities: Vec<String>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<Ipv4Addr>,
    /// OTC (RFC 9234).
    pub only_to_customer: Option<u32>,
    /// AGGREGATOR.
    pub aggregator: Option<String>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// Codes of attributes that nobody here knows.
    pub unknown: Vec<u8>,
}

impl AttributesView {
    /// Of a set.
    pub fn new(set: &bgp::attribute::Attributes) -> AttributesView {
        let address = set.next_hop.address();
        let communities = set.communities.iter().map(ToString::to_string);
        let extended = set.extended_communities.iter().map(ToString::to_string);
        let large = set.large_communities.iter().map(ToString::to_string);
        AttributesView {
            next_hop: (!address.is_unspecified()).then_some(address),
            next_hop_link_local: match set.next_hop {
                bgp::attribute::NextHop::V6 { link_local, .. } => link_local,
                bgp::attribute::NextHop::V4(_) => None,
            },
            as_path: set.as_path.to_string(),
            origin: match set.origin {
                bgp::attribute::Origin::Igp => "igp",
                bgp::attribute::Origin::Egp => "egp",
                bgp::attribute::Origin::Incomplete => "incomplete",
            }
            .to_owned(),
            local_preference: set.local_preference,
            med: set.med,
            communities: communities.chain(extended).chain(large).collect(),
            originator_id: set.originator_id,
            cluster_list: set.cluster_list.to_vec(),
            only_to_customer: set.only_to_customer,
            aggregator: set.aggregator.map(|aggregator| format!("{} {}", aggregator.number, aggregator.address)),
            atomic_aggregate: set.atomic_aggregate,
            unknown: set.unknown.iter().map(|unknown| unknown.code).collect(),
        }
    }
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterView {
    /// Its name.
    pub name: String,
    /// As it was written.
    pub written: serde_json::Value,
    /// Who has it: `import of 10.0.0.2`.
    pub used_by: Vec<String>,
}
