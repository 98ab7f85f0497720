//! What endpoints and endpointslice share: which pods back a service, at which addresses and ports, and which service
//! a changed pod concerns.

use std::net::IpAddr;

use client::{Delta, Key, WorkQueue};
use facts::labels::{self, Selector};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::common::pods;
use crate::setup::{Setup, Shared};

pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Queues a changed service and the services that a changed pod may back.
pub fn watch(setup: &mut Setup, queue: &WorkQueue<Key>) -> (Shared<Service>, Shared<Pod>) {
    let services = setup.queue_own::<Service>(queue);
    let (queue, all) = (queue.clone(), services.clone());
    let pods = setup.on(move |delta: &Delta<Pod>| {
        let new = delta.object();
        let old = match delta {
            Delta::Updated { old, .. } if backing_facts(old) == backing_facts(new) => return,
            Delta::Updated { old, .. } => Some(old.metadata.labels.as_ref()),
            _ => None,
        };
        let namespace = new.metadata.namespace.as_deref().unwrap_or("");
        for service in all.list_in(namespace) {
            let Some(selector) = selector(&service) else { continue };
            if selector.matches(&new.metadata.labels) || old.is_some_and(|o| selector.matches(&o)) {
                queue.add(Key::of(service.as_ref()));
            }
        }
    });
    (services, pods)
}

/// What of a pod shows in endpoints.
fn backing_facts(pod: &Pod) -> impl PartialEq + '_ {
    let spec = pod.spec.as_ref();
    (
        pod.metadata.labels.as_ref(),
        pods::is_terminating(pod),
        pods::is_ready(pod),
        pods::is_terminal(pod),
        pod.status.as_ref().map(|s| (&s.pod_ip, &s.pod_ips)),
        spec.map(|s| (&s.node_name, &s.hostname, &s.subdomain)),
    )
}

/// `None`: the user (or nobody) keeps this service's endpoints.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().map(labels::equal_to)
}

pub fn is_headless(service: &Service) -> bool {
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or("");
    ip.is_empty() || ip == "None"
}

pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false)
}

/// The pod can be reached: it has an address, runs or may run again, and (unless asked for) is not going.
pub fn belongs(pod: &Pod, with_terminating: bool) -> bool {
    if pods::is_terminal(pod) || addresses(pod).next().is_none() {
        return false;
    }
    with_terminating || !pods::is_terminating(pod)
}

pub fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> + '_ {
    let status = pod.status.as_ref();
    let many = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
    let one = status.filter(|s| s.pod_ips.as_ref().is_none_or(Vec::is_empty)).and_then(|s| s.pod_ip.as_deref());
    many.chain(one).filter_map(|ip| ip.parse().ok())
}

/// The number that a service port leads to in this pod; `None` if the pod has no port of that name.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        Some(IntOrString::Int(0)) | None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|p| p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|p| p.container_port)
        .next()
}

/// The pod's name within the service's domain.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let host = spec.hostname.clone().filter(|h| !h.is_empty())?;
    (spec.subdomain == service.metadata.name).then_some(host)
}

/// Address families that the service has, the first one first.
pub fn families(service: &Service) -> Vec<&str> {
    let spec = service.spec.as_ref();
    let listed: Vec<&str> =
        spec.and_then(|s| s.ip_families.as_ref()).into_iter().flatten().map(String::as_str).collect();
    if !listed.is_empty() {
        return listed;
    }
    let six = spec.and_then(|s| s.cluster_ip.as_deref()).is_some_and(|ip| ip.contains(':'));
    if six { vec!["IPv6"] } else { vec!["IPv4"] }
}

pub fn is_family(ip: &IpAddr, family: &str) -> bool {
    ip.is_ipv6() == (family == "IPv6")
}

/// Index of pods by the node they are bound to.
pub fn by_node(pod: &Pod) -> Vec<String> {
    pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty()).into_iter().collect()
}
