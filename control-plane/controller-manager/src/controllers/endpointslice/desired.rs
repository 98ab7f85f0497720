//! The endpoints that a service should have, grouped by the ports that they answer at. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};

use super::View;
use crate::common::pods;
use crate::controllers::services;

const ZONE: &str = "topology.kubernetes.io/zone";

/// Endpoints that share one list of ports.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Group {
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// The groups of one address family, in the order of their ports.
pub fn endpoints(view: &View, family: &str) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in &view.pods {
        let Some(address) = services::addresses(pod).find(|ip| services::is_family(ip, family)) else { continue };
        let node_name = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
        let node = view.nodes.get(node_name).map(|n| n.as_ref());
        // A pod of a node that is gone is about to go too, unless even dead addresses are wanted.
        if !node_name.is_empty() && node.is_none() && !services::publishes_not_ready(view.service) {
            continue;
        }
        let ports = ports(pod, view.service);
        let group = groups.entry(key(&ports)).or_insert_with(|| Group { ports, endpoints: Vec::new() });
        group.endpoints.push(endpoint(pod, view.service, node, address));
    }
    groups.into_values().collect()
}

/// Orders and compares port lists, whatever their order.
pub fn key(ports: &[EndpointPort]) -> String {
    let mut all: Vec<String> = ports
        .iter()
        .map(|p| format!("{:?} {:?} {:?} {:?}", p.name.as_deref().unwrap_or(""), p.protocol, p.port, p.app_protocol))
        .collect();
    all.sort();
    all.join(",")
}

pub fn zone(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref()?.get(ZONE)
}

fn ports(pod: &Pod, service: &Service) -> Vec<EndpointPort> {
    let wanted = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
    let known = wanted.filter_map(|p| {
        Some(EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(services::target_port(pod, p)?),
            protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: p.app_protocol.clone(),
        })
    });
    known.collect()
}

fn endpoint(pod: &Pod, service: &Service, node: Option<&Node>, address: IpAddr) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let ready = services::publishes_not_ready(service) || (serving && !terminating);
    let spec = pod.spec.as_ref();
    let zone = node.and_then(zone).cloned();
    let node_name = spec.and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: if ready { hints(service, zone.as_ref(), node_name.as_ref()) } else { None },
        hostname: services::hostname(pod, service),
        target_ref: Some(k8s_openapi::api::core::v1::ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        node_name,
        zone,
        ..Endpoint::default()
    }
}

/// Where traffic should stay, as `trafficDistribution` asks.
fn hints(service: &Service, zone: Option<&String>, node: Option<&String>) -> Option<EndpointHints> {
    let asked = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_zones = zone.map(|z| vec![ForZone { name: z.clone() }]);
    let for_nodes = node.filter(|_| asked == "PreferSameNode").map(|n| vec![ForNode { name: n.clone() }]);
    let known = matches!(asked, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    (known && (for_zones.is_some() || for_nodes.is_some())).then_some(EndpointHints { for_zones, for_nodes })
}
