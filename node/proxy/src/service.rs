//! What a Service and its EndpointSlices say, in the proxy's terms. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use meta::Prefix;

use crate::config::Node;

/// Whoever set this label serves the Service; the proxy keeps off.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Endpoints are numbered in 16 bits; far above what the kernel side or the API holds for one Service.
const MOST_ENDPOINTS: usize = 60_000;

/// IPPROTO_UDP.
pub const UDP: u8 = 17;

/// A virtual server, as IPVS calls it: an address, protocol and port of a Service that packets are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualServer {
    pub addr: IpAddr,
    /// IPPROTO_*.
    pub protocol: u8,
    pub port: u16,
}

/// A list of endpoints, named by the Service's own address and port; `local` is the list of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    pub vip: IpAddr,
    pub protocol: u8,
    pub port: u16,
    pub local: bool,
}

/// Which endpoints a policy lets traffic go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Cluster,
    Local,
}

/// A Service as the proxy sees it, in one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub cluster_ip: IpAddr,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Addresses of this node at which it answers for a load balancer.
    pub node_ips: Vec<IpAddr>,
    /// Who may reach the load balancer addresses; empty: everyone.
    pub source_ranges: Vec<Prefix>,
    pub internal: Policy,
    pub external: Policy,
    /// Session affinity by client address: seconds.
    pub affinity: Option<u32>,
    pub ports: Vec<Port>,
}

/// A port of a Service with where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub protocol: u8,
    pub port: u16,
    pub node_port: Option<u16>,
    /// Endpoints for everyone, sorted.
    pub cluster: Vec<(IpAddr, u16)>,
    /// Endpoints on this node, sorted.
    pub local: Vec<(IpAddr, u16)>,
    /// Addresses of endpoints on this node, which may be clients of themselves.
    pub on_node: Vec<IpAddr>,
}

/// The Service's health check port and how many endpoints of it are on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    pub local_endpoints: usize,
}

/// Whether the proxy has anything to do with a Service.
pub fn is_proxied(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let labels = service.metadata.labels.as_ref();
    spec.type_.as_deref() != Some("ExternalName")
        && !matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
        && !labels.is_some_and(|l| l.contains_key(OTHER_PROXY))
}

/// The views of a Service, one for each of its cluster addresses.
pub fn views(service: &Service, slices: &[&EndpointSlice], node: &Node) -> Vec<View> {
    if !is_proxied(service) {
        return Vec::new();
    }
    let Some(spec) = &service.spec else { return Vec::new() };
    let primary = spec.cluster_ip.iter().cloned().collect();
    let cluster_ips = spec.cluster_ips.as_ref().filter(|ips| !ips.is_empty()).unwrap_or(&primary);
    let mut views: Vec<View> = Vec::new();
    for cluster_ip in cluster_ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
        if !views.iter().any(|v| v.cluster_ip == cluster_ip) {
            views.push(view(service, cluster_ip, slices, node));
        }
    }
    views
}

/// The ports of the node's own addresses that a Service is reached at.
pub fn node_servers(service: &Service, node: &Node) -> Vec<VirtualServer> {
    if !is_proxied(service) {
        return Vec::new();
    }
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let ports: Vec<_> =
        ports.filter_map(|p| Some((protocol_number(p.protocol.as_deref())?, u16::try_from(p.port).ok()?))).collect();
    let addresses = [false, true].into_iter().flat_map(|v6| node_ips(service, v6, node));
    addresses
        .flat_map(|addr| {
            ports.iter().map(move |(protocol, port)| VirtualServer { addr, protocol: *protocol, port: *port })
        })
        .collect()
}

/// The node's own addresses of a family, when its load balancer is told to go to one of them: which of its addresses
/// packets have in the end is up to routers before it.
fn node_ips(service: &Service, v6: bool, node: &Node) -> Vec<IpAddr> {
    let own = |ip: &IpAddr| ip.is_ipv6() == v6 && node.addresses.contains(ip);
    let mut told = ingress(service).filter(|i| i.ip_mode.as_deref() == Some("Proxy"));
    if !told.any(|i| i.ip.as_deref().and_then(|ip| ip.parse().ok()).as_ref().is_some_and(own)) {
        return Vec::new();
    }
    node.addresses.iter().copied().filter(|ip| ip.is_ipv6() == v6).collect()
}

/// What a load balancer says, when the Service has one.
fn ingress(service: &Service) -> impl Iterator<Item = &LoadBalancerIngress> {
    let balancer = service.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer"));
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).filter(|_| balancer);
    status.and_then(|l| l.ingress.as_ref()).into_iter().flatten()
}

/// How many endpoints of the Service are on this node, when a load balancer may ask for that.
pub fn health_check(service: &Service, views: &[View]) -> Option<HealthCheck> {
    let spec = service.spec.as_ref()?;
    let port = u16::try_from(spec.health_check_node_port?).ok().filter(|p| *p != 0)?;
    if spec.type_.as_deref() != Some("LoadBalancer") || spec.external_traffic_policy.as_deref() != Some("Local") {
        return None;
    }
    let mut addresses: Vec<_> = views.iter().flat_map(|v| &v.ports).flat_map(|p| &p.local).map(|(a, _)| *a).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Some(HealthCheck { port, local_endpoints: addresses.len() })
}

fn view(service: &Service, cluster_ip: IpAddr, slices: &[&EndpointSlice], node: &Node) -> View {
    let nothing = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&nothing);
    let v6 = cluster_ip.is_ipv6();
    let family = |ip: &IpAddr| ip.is_ipv6() == v6;
    let policy = |text: &Option<String>| match text.as_deref() {
        Some("Local") => Policy::Local,
        _ => Policy::Cluster,
    };
    let load_balancer_ips = ingress(service)
        .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| i.ip.as_deref()?.parse().ok())
        .filter(family)
        .collect();
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        const THREE_HOURS: u32 = 10_800;
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        config.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(THREE_HOURS)
    });
    View {
        cluster_ip,
        external_ips: parsed(&spec.external_ips).filter(family).collect(),
        load_balancer_ips,
        node_ips: node_ips(service, v6, node),
        source_ranges: source_ranges(&spec.load_balancer_source_ranges, v6),
        internal: policy(&spec.internal_traffic_policy),
        external: policy(&spec.external_traffic_policy),
        affinity,
        ports: spec.ports.iter().flatten().filter_map(|p| port(p, v6, slices, node)).collect(),
    }
}

/// Who may reach load balancer addresses of a family. A range that can't be read lets nobody in, rather than everybody
/// when it is the only one.
fn source_ranges(texts: &Option<Vec<String>>, v6: bool) -> Vec<Prefix> {
    let mut ranges: Vec<Prefix> = parsed(texts).filter(|p: &Prefix| p.addr.is_ipv6() == v6).collect();
    let unread = texts.iter().flatten().any(|text| text.trim().parse::<Prefix>().is_err());
    if ranges.is_empty() && unread {
        // No packet comes from there.
        let nobody: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        ranges.push(Prefix::host(nobody));
    }
    ranges
}

fn parsed<T: std::str::FromStr>(texts: &Option<Vec<String>>) -> impl Iterator<Item = T> {
    texts.iter().flatten().filter_map(|t| t.trim().parse().ok())
}

fn port(port: &ServicePort, v6: bool, slices: &[&EndpointSlice], node: &Node) -> Option<Port> {
    let protocol = protocol_number(port.protocol.as_deref())?;
    let found = endpoints(port, protocol, v6, slices);
    let chosen = nearest(usable(&found), node);
    let here = usable(&found.iter().filter(|e| e.is_on(node)).cloned().collect::<Vec<_>>());
    let mut on_node: Vec<_> = found.iter().filter(|e| e.is_on(node)).map(|e| e.addr).collect();
    on_node.sort_unstable();
    on_node.dedup();
    Some(Port {
        protocol,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
        cluster: targets(&chosen),
        local: targets(&here),
        on_node,
    })
}

/// IPPROTO_* of a port's protocol; none for what the API does not know.
pub fn protocol_number(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("" | "TCP") => Some(6),
        Some("UDP") => Some(UDP),
        Some("SCTP") => Some(132),
        _ => None,
    }
}

/// One endpoint of one port.
#[derive(Clone, Debug)]
struct Found<'a> {
    addr: IpAddr,
    port: u16,
    ready: bool,
    serving: bool,
    terminating: bool,
    endpoint: &'a Endpoint,
}

impl Found<'_> {
    fn is_on(&self, node: &Node) -> bool {
        self.endpoint.node_name.as_deref() == Some(&node.name)
    }

    fn hinted_zones(&self) -> impl Iterator<Item = &str> {
        self.endpoint.hints.iter().flat_map(|h| h.for_zones.iter().flatten()).map(|z| z.name.as_str())
    }

    fn hinted_nodes(&self) -> impl Iterator<Item = &str> {
        self.endpoint.hints.iter().flat_map(|h| h.for_nodes.iter().flatten()).map(|n| n.name.as_str())
    }
}

/// All endpoints that the slices give for a port, in any condition.
fn endpoints<'a>(port: &ServicePort, protocol: u8, v6: bool, slices: &[&'a EndpointSlice]) -> Vec<Found<'a>> {
    let wanted = if v6 { "IPv6" } else { "IPv4" };
    let name = port.name.as_deref().unwrap_or("");
    let mut found = Vec::new();
    for slice in slices.iter().filter(|s| s.address_type == wanted) {
        let numbers = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or("") == name && protocol_number(p.protocol.as_deref()) == Some(protocol)
        });
        for number in numbers.filter_map(|p| u16::try_from(p.port?).ok()).filter(|p| *p != 0) {
            for endpoint in slice.endpoints.iter().flatten() {
                // Only the first address counts: the API says that all lead to the same place.
                let Some(addr) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else { continue };
                let conditions = endpoint.conditions.as_ref();
                let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
                found.push(Found {
                    addr,
                    port: number,
                    ready,
                    serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
                    terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
                    endpoint,
                });
            }
        }
    }
    found
}

/// The ready ones; when there is none, those that still serve while they terminate.
fn usable<'a>(found: &[Found<'a>]) -> Vec<Found<'a>> {
    let ready: Vec<_> = found.iter().filter(|e| e.ready).cloned().collect();
    if !ready.is_empty() {
        return ready;
    }
    found.iter().filter(|e| e.serving && e.terminating).cloned().collect()
}

/// Those that their hints send this node to: by node, else by zone, when every one has such hints and one is for us.
fn nearest<'a>(usable: Vec<Found<'a>>, node: &Node) -> Vec<Found<'a>> {
    let all_nodes = usable.iter().all(|e| e.hinted_nodes().next().is_some());
    if all_nodes && usable.iter().any(|e| e.hinted_nodes().any(|n| n == node.name)) {
        return usable.into_iter().filter(|e| e.hinted_nodes().any(|n| n == node.name)).collect();
    }
    let Some(zone) = &node.zone else { return usable };
    let all_zones = usable.iter().all(|e| e.hinted_zones().next().is_some());
    if all_zones && usable.iter().any(|e| e.hinted_zones().any(|z| z == zone)) {
        return usable.into_iter().filter(|e| e.hinted_zones().any(|z| z == zone)).collect();
    }
    usable
}

fn targets(found: &[Found<'_>]) -> Vec<(IpAddr, u16)> {
    let mut targets: Vec<_> = found.iter().map(|e| (e.addr, e.port)).collect();
    targets.sort_unstable();
    targets.dedup();
    targets.truncate(MOST_ENDPOINTS);
    targets
}
