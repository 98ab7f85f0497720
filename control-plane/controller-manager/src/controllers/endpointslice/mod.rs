//! endpointslice-controller: who answers for a service, in slices of at most 100 endpoints with the same ports. The
//! desired endpoints come from [`desired`], the least change of slices from [`pack`].

pub mod desired;
pub mod pack;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::services;
use crate::common::acts;
use crate::runner::Work;
use crate::setup::Setup;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Index of slices by `namespace/service`.
const BY_SERVICE: &str = "service";

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let (all_services, pods) = services::watch(setup, &queue);
    setup.index::<EndpointSlice>(BY_SERVICE, by_service);
    let again = queue.clone();
    let slices = setup.on(move |delta: &Delta<EndpointSlice>| {
        let slice = delta.object();
        if let Some(service) = service_of(slice)
            && is_ours(slice)
        {
            again.add(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), service));
        }
    });
    let nodes = watch_nodes(setup, &queue, all_services.clone(), pods.clone());
    let executor = setup.executor("endpoint-slice-controller");
    let (workers, most) = (setup.config.concurrency.endpointslice, setup.config.max_endpoints_per_slice);
    setup.run(Work::new(&queue, executor, workers, move |key, _| {
        let Some(service) = all_services.get(key) else { return Plan::default() };
        let Some(selector) = services::selector(&service) else { return Plan::default() };
        let backing = pods.list_labelled(&key.namespace, |labels| selector.matches(labels)).into_iter();
        let backing: Vec<Arc<Pod>> = backing.filter(|p| services::belongs(p, true)).collect();
        let names = backing.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone());
        let nodes = names.filter_map(|n| Some((n.clone(), nodes.get_in("", &n)?))).collect();
        let slices = slices.by(BY_SERVICE, &key.to_string()).into_iter().filter(|s| is_ours(s)).collect();
        reconcile(&View { service: &service, pods: backing, nodes, slices }, most)
    }));
}

/// A node's zone, and that it is there at all, shows in the endpoints of its pods.
fn watch_nodes(
    setup: &mut Setup,
    queue: &WorkQueue<Key>,
    all_services: crate::setup::Shared<Service>,
    pods: crate::setup::Shared<Pod>,
) -> crate::setup::Shared<Node> {
    let queue = queue.clone();
    setup.index::<Pod>("node", crate::controllers::services::by_node);
    setup.on(move |delta: &Delta<Node>| {
        if let Delta::Updated { old, new } = delta
            && desired::zone(old) == desired::zone(new)
        {
            return;
        }
        let name = delta.object().metadata.name.clone().unwrap_or_default();
        for pod in pods.by("node", &name) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            for service in all_services.list_in(namespace) {
                if services::selector(&service).is_some_and(|s| s.matches(&pod.metadata.labels)) {
                    queue.add(Key::of(service.as_ref()));
                }
            }
        }
    })
}

fn service_of(slice: &EndpointSlice) -> Option<&String> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME)
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == CONTROLLER)
}

fn by_service(slice: &EndpointSlice) -> Vec<String> {
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    service_of(slice).map(|name| Key::new(namespace, name).to_string()).into_iter().collect()
}

/// What the caches show of one service.
pub struct View<'a> {
    pub service: &'a Service,
    /// Pods that back it, terminating ones too.
    pub pods: Vec<Arc<Pod>>,
    pub nodes: HashMap<String, Arc<Node>>,
    /// The slices that this controller made for it.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// `most`: endpoints per slice.
pub fn reconcile(view: &View, most: usize) -> Plan {
    let mut plan = Plan::default();
    if view.service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let families = services::families(view.service);
    let (kept, foreign): (Vec<_>, Vec<_>) =
        view.slices.iter().cloned().partition(|s| families.contains(&s.address_type.as_str()));
    for family in families {
        let groups = desired::endpoints(view, family);
        let slices: Vec<_> = kept.iter().filter(|s| s.address_type == family).cloned().collect();
        plan.extend(pack::slices(view.service, family, groups, &slices, most));
    }
    plan.extend(foreign.iter().map(|s| acts::delete(s.as_ref())));
    plan
}
