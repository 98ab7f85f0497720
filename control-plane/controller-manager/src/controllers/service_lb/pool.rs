//! Addresses out of a pool, for Services of type LoadBalancer, and which node announces each on its network. Pure.
//!
//! **What is given is in the Services themselves**: an address belongs to whoever has it in its status. So nothing can get
//! out of step with a record of its own, and a controller that starts knows all by the first list. A Service keeps what it
//! has, as long as the pool has it; of two that have one address (somebody wrote it there) the older keeps it. New ones are
//! given one by one (`Work::serial`), each decided on all that was written before.
//!
//! **The controller elects**, and writes it into the Service with the address (`facts::announcing`). MetalLB has each node
//! compute it from the same facts, and kube-vip a Lease for each address. Nodes that compute differ for as long as one's
//! facts are older, and each would have to watch all nodes; Leases are renewed for ever, by every node for every address,
//! and when the API server is away for a few seconds nobody answers any more. One writer differs with nobody, costs one
//! write when something changes, and a node goes on answering while no server is there. A node that dies without a word is
//! replaced within seconds ([`super::silence`]). What is left is the node that is cut off, was replaced, and doesn't know: its
//! announcer hears the other one (`announcer`, its head).
//!
//! Which node has an address is a rendezvous hash: when one goes, its addresses spread over the others, and those of the
//! others stay where they are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use facts::announcing;
use facts::nodes;
use k8s_openapi::api::core::v1::{Node, Service};
use meta::Span;

use super::share::{self, Cluster};

/// What a Service is to have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub addresses: Vec<IpAddr>,
    /// Who announces which of them.
    pub announcers: Vec<(IpAddr, String)>,
}

/// Addresses and who announces them, or in words for people why there are none.
pub fn give(service: &Service, cluster: &Cluster<'_>) -> Result<Given, String> {
    let addresses = allocate(service, cluster)?;
    let candidates = share::candidates(service, cluster);
    let announcers = addresses.iter().filter_map(|a| Some((*a, elect(*a, &candidates, cluster)?.to_owned()))).collect();
    Ok(Given { addresses, announcers })
}

fn allocate(service: &Service, cluster: &Cluster<'_>) -> Result<Vec<IpAddr>, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let taken = taken(service, cluster);
    let asked = asked(spec.load_balancer_ip.as_deref(), &families, cluster, &taken)?;
    let held = share::held(service);
    let may_lack = spec.ip_family_policy.as_deref() == Some("PreferDualStack");
    let mut given = Vec::new();
    let mut lacking = None;
    for family in &families {
        let v6 = family == "IPv6";
        let of_pool = |a: &&IpAddr| a.is_ipv6() == v6 && cluster.pool.iter().any(|span| span.contains(**a));
        let kept = held.iter().filter(of_pool).find(|a| !taken.contains_key(*a)).copied();
        match asked.filter(|a| a.is_ipv6() == v6).or(kept).or_else(|| free(v6, cluster.pool, &taken)) {
            Some(address) => given.push(address),
            None => lacking = lacking.or(Some(none_left(family, v6, cluster.pool))),
        }
    }
    match lacking {
        Some(why) if !may_lack || given.is_empty() => Err(why),
        _ => Ok(given),
    }
}

fn none_left(family: &str, v6: bool, pool: &[Span]) -> String {
    match pool.iter().any(|span| span.is_ipv6() == v6) {
        true => format!("every {family} address of the load balancer pool is taken: pending until one is free"),
        false => format!("the load balancer pool has no {family} addresses"),
    }
}

/// The address that the Service asks for, when it can have it.
fn asked(
    text: Option<&str>,
    families: &[String],
    cluster: &Cluster<'_>,
    taken: &BTreeMap<IpAddr, String>,
) -> Result<Option<IpAddr>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |why: &str| Err(format!("spec.loadBalancerIP {text} {why}"));
    let Ok(address) = text.parse::<IpAddr>() else { return wrong("is no IP address") };
    let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
    if !families.iter().any(|f| f == family) {
        return wrong(&format!("is none of the Service's ipFamilies ({})", families.join(", ")));
    }
    if !cluster.pool.iter().any(|span| span.contains(address)) {
        let pool: Vec<String> = cluster.pool.iter().map(Span::to_string).collect();
        return wrong(&format!("is not in the load balancer pool: choose one of {}", pool.join(", ")));
    }
    match taken.get(&address) {
        Some(by) => wrong(&format!("is taken by {by}: pending until it is free")),
        None => Ok(Some(address)),
    }
}

/// What others have, and who: Services of whatever class, and nodes.
fn taken(service: &Service, cluster: &Cluster<'_>) -> BTreeMap<IpAddr, String> {
    let own: BTreeSet<IpAddr> = share::held(service).into_iter().collect();
    let (rank, me) = (share::rank(service), share::full_name(service));
    let others = cluster.services.iter().filter(|other| share::full_name(other) != me);
    let of_services = others.flat_map(|other| {
        let older = rank < share::rank(other);
        let addresses = share::held(other).into_iter().filter(|a| !(older && own.contains(a))).collect::<Vec<_>>();
        addresses.into_iter().map(move |a| (a, format!("Service {}", share::full_name(other))))
    });
    let of_nodes = cluster.nodes.iter().flat_map(|node| {
        let addresses = share::addresses(node).filter_map(|(_, ip)| ip.parse().ok());
        addresses.map(|a: IpAddr| (a, format!("node {}", share::name(node))))
    });
    of_services.chain(of_nodes).collect()
}

fn free(v6: bool, pool: &[Span], taken: &BTreeMap<IpAddr, String>) -> Option<IpAddr> {
    let all = pool.iter().filter(|span| span.is_ipv6() == v6).flat_map(Span::addresses);
    // No more are passed over than are taken, and of 256 two that mean more than one host.
    let mut usable = all.filter(|address| !is_odd(*address));
    usable.find(|address| !taken.contains_key(address))
}

/// What is for all of a network, or names it, in networks as people have them: given to nobody who doesn't ask for it.
fn is_odd(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets()[3], 0 | 255),
        // The routers' address of a network.
        IpAddr::V6(v6) => v6.segments()[4..] == [0; 4],
    }
}

/// The node that announces an address: of those that could serve it one that is on its network and is heard of. Where no node
/// of the cluster is on it, a router has been told the way, and any will do; where none is heard of, one that may be there.
fn elect<'n>(address: IpAddr, candidates: &[&'n Node], cluster: &Cluster<'_>) -> Option<&'n str> {
    let faces = |node: &Node| announcing::networks(node).is_some_and(|all| all.iter().any(|n| n.contains(address)));
    let somebody = cluster.nodes.iter().any(|node| faces(node));
    let may = |node: &&&Node| {
        let connected = nodes::status(node, "NetworkUnavailable") != "True";
        connected && announcing::networks(node).is_some() && (!somebody || faces(node))
    };
    let names = candidates.iter().filter(may).map(|node| share::name(node));
    names.max_by_key(|name| (!cluster.silent.contains(*name), weight(name, address), Reverse(*name)))
}

/// FNV-1a, mixed at the end as MurmurHash3 does it. Written out here, for it must be the same in every version: another
/// hash moves every address of a cluster.
fn weight(node: &str, address: IpAddr) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let text = format!("{node}#{address}");
    let sum = text.bytes().fold(OFFSET, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(PRIME));
    let sum = (sum ^ (sum >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let sum = (sum ^ (sum >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    sum ^ (sum >> 33)
}
