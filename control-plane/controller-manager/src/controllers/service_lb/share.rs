//! Which nodes' addresses a Service has: decided over all Services, so that no port of a node is two Services'. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use facts::announcing;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use meta::Span;

/// Nodes with this label are no load balancer's.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The cluster autoscaler's taint: the node is about to go.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// A port of a node: protocol and number.
pub type Port = (String, i32);

/// What addresses are decided by.
pub struct Cluster<'c> {
    pub services: &'c [Arc<Service>],
    pub nodes: &'c [Arc<Node>],
    pub slices: &'c dyn Fn(&Service) -> Vec<Arc<EndpointSlice>>,
    /// Ports that are the nodes' own.
    pub reserved: &'c [Port],
    /// Addresses that Services are given instead of the nodes' own; empty: they have the nodes'.
    pub pool: &'c [Span],
    /// Nodes whose announcers say nothing any more.
    pub silent: &'c BTreeSet<String>,
}

/// What a Service gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Addresses(Vec<String>),
    /// In words for people.
    Refused(String),
}

/// Whether a Service is to have addresses of nodes.
pub fn is_wanted(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec.load_balancer_class.is_none()
        && service.metadata.deletion_timestamp.is_none()
}

/// Whether only nodes with endpoints of it may be asked.
pub fn is_local(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.external_traffic_policy.as_deref()) == Some("Local")
}

/// The ports that a Service takes of nodes: those of a load balancer, and node ports.
pub fn claims(service: &Service) -> BTreeSet<Port> {
    let own = ports(service).filter(|_| is_wanted(service));
    own.chain(node_ports(service)).collect()
}

fn ports(service: &Service) -> impl Iterator<Item = Port> + '_ {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports.map(|p| (p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), p.port))
}

fn node_ports(service: &Service) -> impl Iterator<Item = Port> + '_ {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports.filter_map(|p| {
        Some((p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), p.node_port.filter(|n| *n != 0)?))
    })
}

/// What of a node matters: whether load balancers use it, its addresses, and what it says of its networks.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts<'n> {
    usable: bool,
    addresses: Vec<(&'n str, &'n str)>,
    networks: Option<&'n String>,
    connected: &'n str,
}

pub fn facts(node: &Node) -> Facts<'_> {
    Facts {
        usable: is_usable(node),
        addresses: addresses(node).collect(),
        networks: node.metadata.annotations.as_ref().and_then(|all| all.get(announcing::NETWORKS)),
        connected: facts::nodes::status(node, "NetworkUnavailable"),
    }
}

/// The addresses that a Service has now.
pub fn held(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|i: &LoadBalancerIngress| i.ip.as_deref()?.parse().ok()).collect()
}

fn is_usable(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.clone().any(|c| c.type_ == "Ready" && c.status == "True");
    let excluded = node.metadata.labels.as_ref().is_some_and(|l| l.contains_key(EXCLUDED));
    let mut taints = node.spec.as_ref().and_then(|s| s.taints.as_ref()).into_iter().flatten();
    ready && !excluded && !taints.any(|t| t.key == TO_BE_DELETED) && node.metadata.deletion_timestamp.is_none()
}

pub fn addresses(node: &Node) -> impl Iterator<Item = (&str, &str)> {
    let all = node.status.as_ref().and_then(|s| s.addresses.as_ref()).into_iter().flatten();
    all.filter(|a| matches!(a.type_.as_str(), "InternalIP" | "ExternalIP"))
        .map(|a| (a.type_.as_str(), a.address.as_str()))
}

pub fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// The nodes that a Service could be reached at.
pub fn candidates<'c>(service: &Service, cluster: &Cluster<'c>) -> Vec<&'c Node> {
    let mut usable: Vec<&Node> = cluster.nodes.iter().map(AsRef::as_ref).filter(|n| is_usable(n)).collect();
    if is_local(service) {
        let slices = (cluster.slices)(service);
        let endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
        let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let with: BTreeSet<&str> = ready.filter_map(|e| e.node_name.as_deref()).collect();
        usable.retain(|node| with.contains(name(node)));
    }
    usable.sort_by_key(|node| name(node));
    usable
}

/// By age, then by name: the same for everybody who looks.
pub fn rank(service: &Service) -> (Option<jiff::Timestamp>, &str, &str) {
    let meta = &service.metadata;
    let since = meta.creation_timestamp.as_ref().map(|time| time.0);
    (since, meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

pub fn full_name(service: &Service) -> String {
    let (_, namespace, name) = rank(service);
    format!("{namespace}/{name}")
}

/// The addresses of a Service.
pub fn share(service: &Service, cluster: &Cluster<'_>) -> Found {
    if let Some((protocol, port)) = ports(service).find(|port| cluster.reserved.contains(port)) {
        let why = "is the nodes' own and no Service's: choose another port";
        return Found::Refused(format!("port {port}/{protocol} {why}"));
    }
    let holders = node_port_holders(cluster);
    let me = full_name(service);
    for port in ports(service) {
        if let Some(other) = holders.get(&port).filter(|other| **other != me) {
            let (protocol, number) = port;
            return Found::Refused(format!("port {number}/{protocol} of the nodes is a node port of Service {other}"));
        }
    }
    let mut taken: HashMap<(&str, Port), String> = HashMap::new();
    let mut wanted: Vec<&Arc<Service>> = cluster.services.iter().filter(|s| is_wanted(s)).collect();
    wanted.sort_by_key(|s| rank(s));
    for other in wanted {
        let other_name = full_name(other);
        let refused = |port: &Port| {
            cluster.reserved.contains(port) || holders.get(port).is_some_and(|holder| *holder != other_name)
        };
        if ports(other).any(|port| refused(&port)) {
            continue;
        }
        let mut given = Vec::new();
        let mut conflict = None;
        let all = candidates(other, cluster);
        for node in &all {
            let clash =
                ports(other).find_map(|port| taken.get(&(name(node), port.clone())).map(|by| (port, by.clone())));
            match clash {
                Some(clash) => conflict = Some(clash),
                None => {
                    ports(other).for_each(|port| drop(taken.insert((name(node), port), other_name.clone())));
                    given.push(*node);
                }
            }
        }
        if other_name == me {
            return match conflict {
                Some(((protocol, port), by)) if given.is_empty() => {
                    let why = "pending until it is free";
                    Found::Refused(format!("port {port}/{protocol} of the nodes is taken by Service {by}: {why}"))
                }
                _ => Found::Addresses(addresses_for(service, &given)),
            };
        }
    }
    Found::Addresses(Vec::new())
}

/// Node ports and whose they are. One number can be several Services' only by different protocols.
fn node_port_holders(cluster: &Cluster<'_>) -> HashMap<Port, String> {
    let all = cluster.services.iter().flat_map(|s| node_ports(s).map(|port| (port, full_name(s))));
    all.collect()
}

/// Of each node the addresses for those outside, or else those within; in the order of the Service's families.
fn addresses_for(service: &Service, nodes: &[&Node]) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let mut out = Vec::new();
    for family in families {
        for node in nodes {
            let of = |wanted: &str| -> Vec<IpAddr> {
                let all = addresses(node).filter(|(kind, _)| *kind == wanted).filter_map(|(_, ip)| ip.parse().ok());
                all.filter(|ip: &IpAddr| ip.is_ipv6() == (family == "IPv6")).collect()
            };
            let external = of("ExternalIP");
            let chosen = if external.is_empty() { of("InternalIP") } else { external };
            out.extend(chosen.iter().map(IpAddr::to_string).filter(|ip| !out.contains(ip)).collect::<Vec<_>>());
        }
    }
    out
}
