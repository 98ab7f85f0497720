//! Decides what of a Service belongs into which map. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rustc_hash::FxHashMap;

use crate::chains::{Chain, LOCAL_OFFSET, Mode, Pick, Via};
use crate::config::Settings;
use crate::model::{Entry, Model, Name, Ruleset, Slot, Value, Way};
use crate::service::{self, Group, HealthCheck, Policy, Port, UDP, View, VirtualServer};

/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What one Service contributes.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    pub entries: Vec<Entry>,
    /// When the Service was made, in seconds: of two that want a place the older has it.
    pub since: i64,
    /// The endpoints of each list, in the order of their numbers.
    pub lists: FxHashMap<Group, Vec<(IpAddr, u16)>>,
    /// Its virtual servers of UDP, and where they lead: flows to elsewhere are stale.
    pub udp: Vec<UdpServer>,
    pub health: Option<HealthCheck>,
    /// Ports whose policy keeps traffic on this node, where nobody takes it.
    pub no_local: NoLocal,
}

/// Counts by policy, within and from outside, for each family: IPv4, IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocal {
    pub internal: [u64; 2],
    pub external: [u64; 2],
}

/// A virtual server of UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpServer {
    /// None: any address, a node port.
    pub addr: Option<IpAddr>,
    pub port: u16,
    pub endpoints: Vec<(IpAddr, u16)>,
}

/// The rules for all Services: what a node that starts now would have.
pub fn render(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], settings: &Settings) -> Ruleset {
    let mut by_service: FxHashMap<(&str, &str), Vec<&EndpointSlice>> = FxHashMap::default();
    for slice in slices {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(name) = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)) {
            by_service.entry((namespace, name)).or_default().push(slice);
        }
    }
    let mut model = Model::default();
    let all = services.iter().map(|service| {
        let meta = &service.metadata;
        let key = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let name: Name = format!("{}/{}", key.0, key.1).into();
        let of = by_service.get(&key).map(Vec::as_slice).unwrap_or_default();
        let rendered = render_service(service, of, settings, None);
        (name, rendered)
    });
    model.set_all(all);
    model.ruleset()
}

/// What a Service contributes. With what it contributed before, endpoints that stay keep their numbers.
pub fn render_service(
    service: &Service,
    slices: &[&EndpointSlice],
    settings: &Settings,
    before: Option<&Rendered>,
) -> Rendered {
    let views = service::views(service, slices, &settings.node);
    let since = service.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second());
    let mut out = Rendered { health: service::health_check(service, &views), since, ..Rendered::default() };
    out.entries.reserve(views.iter().map(about).sum());
    for view in views.into_iter().filter(|v| !settings.node_local.contains(&v.cluster_ip)) {
        let view = View {
            external_ips: without(view.external_ips, &settings.node_local),
            load_balancer_ips: without(view.load_balancer_ips, &settings.node_local),
            ..view
        };
        for port in &view.ports {
            let server = |addr: &IpAddr| VirtualServer { addr: *addr, protocol: port.protocol, port: port.port };
            let held = |addr: &IpAddr| settings.held.contains(&server(addr));
            let node_ips: Vec<IpAddr> = view.node_ips.iter().copied().filter(held).collect();
            match node_ips == view.node_ips {
                true => render_port(&mut out, &view, port, before),
                false => render_port(&mut out, &View { node_ips, ..view.clone() }, port, before),
            }
        }
        out.put(Slot::ClusterIp(view.cluster_ip), Way::Cluster, Value::Present);
    }
    out
}

/// How many places a Service takes, about: so that its list is made once.
fn about(view: &View) -> usize {
    const OF_PORT: usize = 3;
    let sticky = if view.affinity.is_some() { 2 } else { 1 };
    1 + view.ports.iter().map(|port| sticky * port.cluster.len() + port.on_node.len() + OF_PORT).sum::<usize>()
}

/// What the node serves itself is nobody's external address.
fn without(mut addresses: Vec<IpAddr>, node_local: &[IpAddr]) -> Vec<IpAddr> {
    addresses.retain(|addr| !node_local.contains(addr));
    addresses
}

impl Rendered {
    fn put(&mut self, slot: Slot, way: Way, value: Value) {
        self.entries.push(Entry { slot, way, value });
    }
}

fn render_port(out: &mut Rendered, view: &View, port: &Port, before: Option<&Rendered>) {
    let group = |local| Group { vip: view.cluster_ip, protocol: port.protocol, port: port.port, local };
    let (any, here) = (group(false), group(true));
    let uses_local = view.internal == Policy::Local || view.external == Policy::Local;
    for (group, wanted) in [(any, &port.cluster), (here, &port.local)] {
        if group.local && !uses_local {
            continue;
        }
        let old = before.and_then(|b| b.lists.get(&group)).map(Vec::as_slice).unwrap_or_default();
        let placed = place(old, wanted);
        let offset = if group.local { LOCAL_OFFSET } else { 0 };
        for (number, to) in placed.iter().enumerate() {
            out.put(Slot::Endpoint(group, offset + number as u32), Way::Cluster, Value::To(to.0, to.1));
            if view.affinity.is_some() {
                out.put(Slot::Sticky(group, to.0, to.1), Way::Cluster, Value::Present);
            }
        }
        if !placed.is_empty() {
            out.lists.insert(group, placed);
        }
    }
    for addr in &port.on_node {
        out.put(Slot::Hairpin(*addr), Way::Cluster, Value::Present);
    }
    render_ways(out, view, port);
    if port.protocol == UDP {
        note_udp(out, view, port);
    }
}

/// The ways into a port: its cluster address, external and load balancer addresses, node port.
fn render_ways(out: &mut Rendered, view: &View, port: &Port) {
    let (cluster, local) = (port.cluster.len() as u32, port.local.len() as u32);
    let family = usize::from(view.cluster_ip.is_ipv6());
    let nobody = |policy| u64::from(policy == Policy::Local && cluster > 0 && local == 0);
    out.no_local.internal[family] += nobody(view.internal);
    out.no_local.external[family] += nobody(view.external);
    let affinity = view.affinity.unwrap_or(0);
    let server = |addr| VirtualServer { addr, protocol: port.protocol, port: port.port };
    let own = server(view.cluster_ip);
    let pick = |via, mode| {
        let (cluster, local) = match mode {
            Mode::Cluster | Mode::External => (cluster, 0),
            Mode::Local => (0, local),
            Mode::ExternalLocal => (cluster, local),
        };
        Value::Chain(Chain::Pick(Pick { via, mode, cluster, local, affinity }))
    };
    let (leads, nothing) = match (view.internal, cluster, local) {
        (_, 0, 0) => (None, Some(Value::Reject)),
        (Policy::Local, _, 0) => (None, Some(Value::Drop)),
        (Policy::Local, ..) => (Some(pick(Via::ClusterIp, Mode::Local)), None),
        (Policy::Cluster, ..) => (Some(pick(Via::ClusterIp, Mode::Cluster)), None),
    };
    let mut seen = vec![own.addr];
    render_server(out, own, Way::Cluster, [leads, nothing, None]);

    let mode = if view.external == Policy::Local { Mode::ExternalLocal } else { Mode::External };
    let nothing = match (cluster, local, view.external) {
        (0, 0, _) => Some(Value::Reject),
        // Another node has endpoints: whoever balances should have gone there.
        (_, 0, Policy::Local) => Some(Value::Drop),
        _ => None,
    };
    let leads = (cluster > 0 || local > 0).then(|| pick(Via::Alias(own), mode));
    let ranges = &view.source_ranges;
    let wall = (!ranges.is_empty()).then(|| Value::Chain(Chain::Firewall(Arc::new(ranges.clone()))));
    let balanced = view.load_balancer_ips.iter().chain(&view.node_ips).map(|addr| (addr, Way::LoadBalancer, &wall));
    let external = view.external_ips.iter().map(|addr| (addr, Way::External, &None));
    for (addr, way, wall) in balanced.chain(external) {
        // An address that the Service has by several ways is had by the first.
        if !seen.contains(addr) {
            seen.push(*addr);
            render_server(out, server(*addr), way, [leads.clone(), nothing.clone(), wall.clone()]);
        }
    }
    if let Some(number) = port.node_port {
        let v6 = view.cluster_ip.is_ipv6();
        let ways = [Slot::NodePort(v6, port.protocol, number), Slot::NoEndpointsNodePort(v6, port.protocol, number)];
        for (slot, value) in ways.into_iter().zip([leads, nothing]) {
            out.put(slot, Way::NodePort, value.unwrap_or(Value::Vacant));
        }
    }
}

/// Wants an address and port in every map that has them, also where there is nothing to say: the maps of one address
/// are one Service's.
fn render_server(out: &mut Rendered, server: VirtualServer, way: Way, [leads, nothing, wall]: [Option<Value>; 3]) {
    let slots = [Slot::Service(server), Slot::NoEndpoints(server), Slot::Firewall(server)];
    for (slot, value) in slots.into_iter().zip([leads, nothing, wall]) {
        out.put(slot, way, value.unwrap_or(Value::Vacant));
    }
}

fn note_udp(out: &mut Rendered, view: &View, port: &Port) {
    let mut endpoints = port.cluster.clone();
    endpoints.extend(&port.local);
    let own = std::iter::once(&view.cluster_ip);
    let addresses = own.chain(&view.external_ips).chain(&view.load_balancer_ips).chain(&view.node_ips);
    for addr in addresses {
        out.udp.push(UdpServer { addr: Some(*addr), port: port.port, endpoints: endpoints.clone() });
    }
    if let Some(number) = port.node_port {
        out.udp.push(UdpServer { addr: None, port: number, endpoints });
    }
}

/// Numbers for endpoints so that few change: those that stay keep theirs as far as the shorter list reaches, new
/// ones fill the holes.
pub(crate) fn place(old: &[(IpAddr, u16)], wanted: &[(IpAddr, u16)]) -> Vec<(IpAddr, u16)> {
    let mut slots: Vec<Option<(IpAddr, u16)>> = vec![None; wanted.len()];
    let mut rest = Vec::new();
    let numbers: FxHashMap<_, _> = old.iter().enumerate().map(|(number, to)| (*to, number)).collect();
    for to in wanted {
        match numbers.get(to) {
            Some(number) if *number < slots.len() && slots[*number].is_none() => slots[*number] = Some(*to),
            _ => rest.push(*to),
        }
    }
    let mut rest = rest.into_iter();
    slots.into_iter().filter_map(|slot| slot.or_else(|| rest.next())).collect()
}
