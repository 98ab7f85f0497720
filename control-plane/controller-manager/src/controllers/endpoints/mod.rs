//! endpoints-controller: the older, single-object form of a service's backends, kept for clients that still read it.
//! Keys are services.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::services::{self, HEADLESS_LABEL};
use crate::common::{acts, pods, template};
use crate::runner::Work;
use crate::setup::Setup;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Addresses of one object; the rest is cut off and said so. Slices have them all.
const MOST_ADDRESSES: usize = 1000;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let (all_services, pods) = services::watch(setup, &queue);
    let again = queue.clone();
    let endpoints = setup.on(move |delta: &Delta<Endpoints>| again.add(Key::of(delta.object().as_ref())));
    let executor = setup.executor("endpoint-controller");
    let workers = setup.config.concurrency.endpoints;
    setup.run(Work::new(&queue, executor, workers, move |key, _| {
        let found = endpoints.get(key);
        let Some(service) = all_services.get(key) else { return without_service(found.as_deref()) };
        let Some(selector) = services::selector(&service) else { return Plan::default() };
        let backing = pods.list_labelled(&key.namespace, |labels| selector.matches(labels));
        reconcile(&service, &backing, found.as_deref())
    }));
}

/// Ours go with their service; those made by hand are their maker's.
fn without_service(found: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::default();
    let ours =
        |e: &&Endpoints| e.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == CONTROLLER);
    plan.extend(found.filter(ours).map(acts::delete));
    plan
}

fn reconcile(service: &Service, backing: &[Arc<Pod>], found: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::default();
    let (subsets, over) = capped(subsets(service, backing));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    if services::is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let mut next = found.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    next.metadata.labels = Some(labels);
    next.subsets = subsets;
    let mut notes = next.metadata.annotations.take().unwrap_or_default();
    notes.remove(OVER_CAPACITY);
    if over {
        notes.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    next.metadata.annotations = (!notes.is_empty()).then_some(notes);
    match found {
        None => {
            plan.push(acts::create(&next));
        }
        Some(found) if !template::equal(found, &next) => {
            plan.push(acts::update(&next));
        }
        Some(_) => {}
    }
    plan
}

/// One address and what is known of its pod; ordered as upstream's canonical subsets are.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Address {
    ip: String,
    uid: String,
    hostname: Option<String>,
    node: Option<String>,
    name: String,
    namespace: String,
}

/// Name, number, protocol, application protocol.
type Port = (String, i32, String, Option<String>);
type Ports = Vec<Port>;

/// Addresses with the same ports and readiness of ports go together: upstream's repacking.
fn subsets(service: &Service, backing: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let tolerant = services::publishes_not_ready(service);
    let family = services::families(service)[0].to_owned();
    let mut ready_of: BTreeMap<Port, BTreeSet<(Address, bool)>> = BTreeMap::new();
    let mut portless: BTreeSet<(Address, bool)> = BTreeSet::new();
    for pod in backing.iter().filter(|p| services::belongs(p, tolerant)) {
        let Some(ip) = services::addresses(pod).find(|ip| services::is_family(ip, &family)) else { continue };
        let address = address(pod, service, ip.to_string());
        let ready = tolerant || pods::is_ready(pod);
        let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
        let mut any = false;
        for port in ports {
            any = true;
            let Some(number) = services::target_port(pod, port) else { continue };
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let id = (port.name.clone().unwrap_or_default(), number, protocol, port.app_protocol.clone());
            ready_of.entry(id).or_default().insert((address.clone(), ready));
        }
        if !any && services::is_headless(service) {
            portless.insert((address, ready));
        }
    }
    let mut groups: BTreeMap<BTreeSet<(Address, bool)>, Ports> = BTreeMap::new();
    for (port, addresses) in ready_of {
        groups.entry(addresses).or_default().push(port);
    }
    if !portless.is_empty() {
        groups.entry(portless).or_default();
    }
    groups.into_iter().map(|(addresses, ports)| subset(addresses, ports)).collect()
}

fn address(pod: &Pod, service: &Service, ip: String) -> Address {
    Address {
        ip,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        hostname: services::hostname(pod, service),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty()),
        name: pod.metadata.name.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
    }
}

fn subset(addresses: BTreeSet<(Address, bool)>, ports: Ports) -> EndpointSubset {
    let typed = |a: Address| EndpointAddress {
        ip: a.ip,
        hostname: a.hostname,
        node_name: a.node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(a.namespace),
            name: Some(a.name),
            uid: Some(a.uid),
            ..ObjectReference::default()
        }),
    };
    let (ready, not_ready): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(_, ready)| *ready);
    let list = |all: Vec<(Address, bool)>| {
        let all: Vec<EndpointAddress> = all.into_iter().map(|(a, _)| typed(a)).collect();
        (!all.is_empty()).then_some(all)
    };
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: (!name.is_empty()).then_some(name),
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    EndpointSubset {
        addresses: list(ready),
        not_ready_addresses: list(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

/// At most a thousand addresses, ready ones first; true if some were cut off.
fn capped(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let len = |l: &Option<Vec<EndpointAddress>>| l.as_ref().map_or(0, Vec::len);
    if subsets.iter().map(|s| len(&s.addresses) + len(&s.not_ready_addresses)).sum::<usize>() <= MOST_ADDRESSES {
        return (subsets, false);
    }
    let mut room = MOST_ADDRESSES;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(all) = list {
            all.truncate(room);
            room -= all.len();
        }
        *list = list.take().filter(|l| !l.is_empty());
    };
    subsets.iter_mut().for_each(|s| cut(&mut s.addresses));
    subsets.iter_mut().for_each(|s| cut(&mut s.not_ready_addresses));
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    (subsets, true)
}
