//! Decides what of a Service belongs into which map. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rustc_hash::FxHashMap;

use crate::chains::{Chain, LOCAL_OFFSET, Mode, Pick, Via};
use crate::config::Settings;
use crate::model::{Model, Name, Ruleset, Slot, Value};
use crate::service::{self, Front, Group, HealthCheck, Policy, Port, View};

/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What one Service contributes.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    pub entries: Vec<(Slot, Value)>,
    /// The endpoints of each list, in the order of their numbers.
    pub lists: FxHashMap<Group, Vec<(IpAddr, u16)>>,
    /// The ways in by UDP, and where they lead: flows to elsewhere are stale.
    pub udp: Vec<UdpFront>,
    pub health: Option<HealthCheck>,
}

/// A way in by UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpFront {
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
    for service in services {
        let meta = &service.metadata;
        let key = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let name: Name = format!("{}/{}", key.0, key.1).into();
        let of = by_service.get(&key).map(Vec::as_slice).unwrap_or_default();
        model.set(&name, render_service(service, of, settings, None));
    }
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
    let mut out = Rendered { health: service::health_check(service, &views), ..Rendered::default() };
    for view in views.iter().filter(|v| !settings.node_local.contains(&v.cluster_ip)) {
        for port in &view.ports {
            render_port(&mut out, view, port, before);
        }
        out.entries.push((Slot::ClusterIp(view.cluster_ip), Value::Present));
    }
    out
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
            out.entries.push((Slot::Endpoint(group, offset + number as u32), Value::To(to.0, to.1)));
            if view.affinity.is_some() {
                out.entries.push((Slot::Sticky(group, to.0, to.1), Value::Present));
            }
        }
        if !placed.is_empty() {
            out.lists.insert(group, placed);
        }
    }
    for addr in &port.on_node {
        out.entries.push((Slot::Hairpin(*addr), Value::Present));
    }
    render_ways(out, view, port);
    if port.protocol == 17 {
        note_udp(out, view, port);
    }
}

/// The ways into a port: its cluster address, external and load balancer addresses, node port.
fn render_ways(out: &mut Rendered, view: &View, port: &Port) {
    let (cluster, local) = (port.cluster.len() as u32, port.local.len() as u32);
    let affinity = view.affinity.unwrap_or(0);
    let front = |addr| Front { addr, protocol: port.protocol, port: port.port };
    let own = front(view.cluster_ip);
    let pick = |via, mode| {
        let (cluster, local) = match mode {
            Mode::Cluster | Mode::External => (cluster, 0),
            Mode::Local => (0, local),
            Mode::ExternalLocal => (cluster, local),
        };
        Value::Chain(Chain::Pick(Pick { via, mode, cluster, local, affinity }))
    };
    match (view.internal, cluster, local) {
        (_, 0, 0) => out.entries.push((Slot::NoEndpoints(own), Value::Reject)),
        (Policy::Local, _, 0) => out.entries.push((Slot::NoEndpoints(own), Value::Drop)),
        (Policy::Local, ..) => out.entries.push((Slot::Service(own), pick(Via::ClusterIp, Mode::Local))),
        (Policy::Cluster, ..) => out.entries.push((Slot::Service(own), pick(Via::ClusterIp, Mode::Cluster))),
    }

    let mode = if view.external == Policy::Local { Mode::ExternalLocal } else { Mode::External };
    let nothing = match (cluster, local, view.external) {
        (0, 0, _) => Some(Value::Reject),
        // Another node has endpoints: whoever balances should have gone there.
        (_, 0, Policy::Local) => Some(Value::Drop),
        _ => None,
    };
    let reachable = cluster > 0 || local > 0;
    let addresses = view.external_ips.iter().chain(&view.load_balancer_ips);
    for way in addresses.map(|addr| front(*addr)) {
        if reachable {
            out.entries.push((Slot::Service(way), pick(Via::Alias(own), mode)));
        }
        out.entries.extend(nothing.clone().map(|value| (Slot::NoEndpoints(way), value)));
    }
    if !view.source_ranges.is_empty() {
        let wall = Chain::Firewall(Arc::new(view.source_ranges.clone()));
        for addr in &view.load_balancer_ips {
            out.entries.push((Slot::Firewall(front(*addr)), Value::Chain(wall.clone())));
        }
    }
    if let Some(number) = port.node_port {
        let v6 = view.cluster_ip.is_ipv6();
        if reachable {
            out.entries.push((Slot::NodePort(v6, port.protocol, number), pick(Via::Alias(own), mode)));
        }
        out.entries.extend(nothing.map(|value| (Slot::NoEndpointsNodePort(v6, port.protocol, number), value)));
    }
}

fn note_udp(out: &mut Rendered, view: &View, port: &Port) {
    let mut endpoints = port.cluster.clone();
    endpoints.extend(&port.local);
    let addresses = std::iter::once(&view.cluster_ip).chain(&view.external_ips).chain(&view.load_balancer_ips);
    for addr in addresses {
        out.udp.push(UdpFront { addr: Some(*addr), port: port.port, endpoints: endpoints.clone() });
    }
    if let Some(number) = port.node_port {
        out.udp.push(UdpFront { addr: None, port: number, endpoints });
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
