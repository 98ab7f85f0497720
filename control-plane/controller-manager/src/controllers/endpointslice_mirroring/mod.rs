//! endpointslice-mirroring-controller: Endpoints that somebody wrote by hand for a Service without a selector, as
//! EndpointSlices, which is all that proxies and DNS look at.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::endpointslice::{MANAGED_BY, SERVICE_NAME, desired};
use super::services;
use crate::common::{acts, owners, template};
use crate::runner::Work;
use crate::setup::Setup;

const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Endpoints with this label are nobody's to mirror: who wrote them writes slices too.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints with this annotation only hold a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations about the Endpoints alone.
const NOT_COPIED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// Index of slices by `namespace/service`.
const BY_SERVICE: &str = "mirrored";

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let again = queue.clone();
    let all_services = setup.on(move |delta: &Delta<Service>| again.add(Key::of(delta.object().as_ref())));
    let again = queue.clone();
    let endpoints = setup.on(move |delta: &Delta<Endpoints>| again.add(Key::of(delta.object().as_ref())));
    setup.index::<EndpointSlice>(BY_SERVICE, |slice| key_of(slice).map(|key| key.to_string()).into_iter().collect());
    let again = queue.clone();
    let slices = setup.on(move |delta: &Delta<EndpointSlice>| {
        if let Some(key) = key_of(delta.object()) {
            again.add(key);
        }
    });
    let executor = setup.executor("endpoint-slice-mirroring-controller");
    let (workers, most) =
        (setup.config.concurrency.endpointslice_mirroring, setup.config.mirroring_max_endpoints_per_subset);
    setup.run(Work::new(&queue, executor, workers, move |key, _| {
        let (service, endpoints) = (all_services.get(key), endpoints.get(key));
        reconcile(service.as_deref(), endpoints.as_deref(), &slices.by(BY_SERVICE, &key.to_string()), most)
    }));
}

/// The service of a slice that this controller made.
fn key_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(MANAGED_BY).is_some_and(|by| by == CONTROLLER);
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    labels.get(SERVICE_NAME).filter(|_| ours).map(|service| Key::new(namespace, service))
}

/// What makes the slices mirror the Endpoints, or go. `existing`: the slices that this controller made for them;
/// `most`: endpoints of a subset that are mirrored.
pub fn reconcile(
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    existing: &[Arc<EndpointSlice>],
    most: usize,
) -> Plan {
    let mut plan = Plan::default();
    let by_hand = service.is_some_and(|service| services::selector(service).is_none());
    let wanted = match endpoints.filter(|endpoints| by_hand && is_mirrored(endpoints)) {
        Some(endpoints) => slices(endpoints, most),
        None => Vec::new(),
    };
    let mut spare: Vec<_> = existing.to_vec();
    for mut slice in wanted {
        match spare.iter().position(|old| identity(old) == identity(&slice)) {
            Some(at) => {
                let old = spare.swap_remove(at);
                let metadata = std::mem::take(&mut slice.metadata);
                slice.metadata = ObjectMeta {
                    labels: metadata.labels,
                    annotations: metadata.annotations,
                    owner_references: metadata.owner_references,
                    ..old.metadata.clone()
                };
                if !template::equal(&slice, &old) {
                    plan.push(acts::update(&slice));
                }
            }
            None => {
                plan.push(acts::create(&slice));
            }
        }
    }
    plan.extend(spare.iter().map(|slice| acts::delete(slice.as_ref())));
    plan
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let metadata = &endpoints.metadata;
    let skipped = metadata.labels.as_ref().and_then(|labels| labels.get(SKIP)).is_some_and(|skip| skip == "true");
    let lock = metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    !skipped && !lock && metadata.deletion_timestamp.is_none()
}

/// Slices with the same addresses' family and ports are the same slice.
fn identity(slice: &EndpointSlice) -> (String, String) {
    (slice.address_type.clone(), desired::key(slice.ports.as_deref().unwrap_or_default()))
}

/// The slices that the Endpoints should have, in a stable order.
fn slices(endpoints: &Endpoints, most: usize) -> Vec<EndpointSlice> {
    let mut wanted: BTreeMap<(String, String), EndpointSlice> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        for (address, ready) in addresses(subset).take(most) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let empty = new_slice(endpoints, subset, family);
            let slice = wanted.entry(identity(&empty)).or_insert(empty);
            slice.endpoints.get_or_insert_default().push(endpoint(address, ready));
        }
    }
    wanted.into_values().collect()
}

fn addresses(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)))
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn new_slice(endpoints: &Endpoints, subset: &EndpointSubset, family: &str) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    };
    let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(template::name_prefix(&name)),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            owner_references: Some(vec![owners::owner_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        ports: Some(ports).filter(|all| !all.is_empty()),
        endpoints: None,
    }
}
