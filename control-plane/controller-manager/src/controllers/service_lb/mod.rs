//! service-lb-controller: a Service of type LoadBalancer is reached at the addresses of the nodes themselves, as users of
//! small clusters expect. This controller says which; each node's kube-proxy answers there.
//!
//! ```text
//!   Services, by age ──┐
//!   ready nodes ───────┼─ share ──> who has which port of which node ──> status.loadBalancer.ingress
//!   endpoints ─────────┘            (the older has it; node ports and the nodes' own ports are nobody's)
//! ```
//!
//! A Service with a class of its own is left to whoever has that class. Upstream's finalizer is on a Service as long as
//! it may have addresses. An address is written with `ipMode: Proxy`: it is the node's, and packets to it go there and
//! nowhere else, so that no node takes what is meant for another node's API server.

mod share;
#[cfg(test)]
mod tests;

use client::plan::Op;
use client::{Delta, Key, PatchBody, Plan, Target, WorkQueue};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use self::share::{Cluster, Found, is_wanted};
use crate::common::acts;
use crate::runner::Work;
use crate::setup::Setup;

/// Upstream's finalizer of this controller.
const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Index of slices by `namespace/service`.
const BY_SERVICE: &str = "service";

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let services = setup.watch::<Service>();
    let (mark, all) = (queue.clone(), services.clone());
    setup.on(move |delta: &Delta<Service>| {
        let new = delta.object();
        let old = match delta {
            Delta::Updated { old, .. } => Some(old),
            _ => None,
        };
        mark.add(Key::of(new.as_ref()));
        // What it gives up or takes, another may get or lose.
        let matters = match (delta, old) {
            (Delta::Updated { .. }, Some(old)) => share::claims(old) != share::claims(new),
            _ => !share::claims(new).is_empty(),
        };
        if matters {
            all.list().iter().filter(|s| is_wanted(s)).for_each(|s| mark.add(Key::of(s.as_ref())));
        }
    });
    let (mark, all) = (queue.clone(), services.clone());
    let nodes = setup.on(move |delta: &Delta<Node>| {
        let same = matches!(delta, Delta::Updated { old, new } if share::facts(old) == share::facts(new));
        if !same {
            all.list().iter().filter(|s| is_wanted(s)).for_each(|s| mark.add(Key::of(s.as_ref())));
        }
    });
    setup.index::<EndpointSlice>(BY_SERVICE, |slice| service_of(slice).map(|k| k.to_string()).into_iter().collect());
    let (mark, all) = (queue.clone(), services.clone());
    let slices = setup.on(move |delta: &Delta<EndpointSlice>| {
        let wanted = |key: &Key| all.get(key).is_some_and(|service| is_wanted(&service) && share::is_local(&service));
        if let Some(key) = service_of(delta.object()).filter(wanted) {
            mark.add(key);
        }
    });
    let reserved = setup.config.reserved_node_ports.clone();
    let executor = setup.executor("service-controller");
    setup.run(Work::new(&queue, executor, 1, move |key, _| {
        let Some(service) = services.get(key) else { return Plan::default() };
        let (all, nodes) = (services.list(), nodes.list());
        let of = |service: &Service| slices.by(BY_SERVICE, &Key::of(service).to_string());
        reconcile(&service, &Cluster { services: &all, nodes: &nodes, slices: &of, reserved: &reserved })
    }));
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

fn reconcile(service: &Service, cluster: &Cluster<'_>) -> Plan {
    let has = service.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let held = addresses_of(service);
    if !is_wanted(service) {
        return match has {
            true => let_go(service, !held.is_empty()),
            false => Plan::nothing("it is no load balancer of this controller"),
        };
    }
    let (addresses, refused) = match share::share(service, cluster) {
        Found::Addresses(addresses) => (addresses, None),
        Found::Refused(why) => (Vec::new(), Some(why)),
    };
    let mut plan = Plan::default();
    if has && addresses == held {
        return Plan::nothing("its addresses are as they should be");
    }
    if !has {
        plan.push(acts::normal(service, "EnsuringLoadBalancer", "Ensuring load balancer".to_owned()));
    }
    plan.push(patch(service, true, &addresses));
    plan.push(match (refused, addresses.is_empty(), held.is_empty()) {
        (Some(why), ..) => acts::warning(service, "SyncLoadBalancerFailed", why),
        (None, true, _) => {
            let note = "There are no available nodes for LoadBalancer";
            acts::warning(service, "UnAvailableLoadBalancer", note.to_owned())
        }
        (None, false, true) => acts::normal(service, "EnsuredLoadBalancer", "Ensured load balancer".to_owned()),
        (None, false, false) => {
            acts::normal(service, "UpdatedLoadBalancer", "Updated load balancer with new hosts".to_owned())
        }
    });
    plan
}

/// The Service wants no addresses any more: they go, and then it may.
fn let_go(service: &Service, has_addresses: bool) -> Plan {
    let mut plan = Plan::default();
    if has_addresses && service.metadata.deletion_timestamp.is_none() {
        plan.push(acts::normal(service, "DeletingLoadBalancer", "Deleting load balancer".to_owned()));
    }
    plan.push(patch(service, false, &[]));
    plan.push(acts::normal(service, "DeletedLoadBalancer", "Deleted load balancer".to_owned()));
    plan
}

/// Finalizer and addresses at once, of this very version: finalizers are a list that others write, too.
fn patch(service: &Service, keep: bool, addresses: &[String]) -> client::Action {
    let mut finalizers: Vec<&str> = service.metadata.finalizers.iter().flatten().map(String::as_str).collect();
    finalizers.retain(|f| *f != FINALIZER);
    if keep {
        finalizers.push(FINALIZER);
    }
    let ingress: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "Proxy"})).collect();
    let balancer = if ingress.is_empty() { json!({"ingress": null}) } else { json!({"ingress": ingress}) };
    let meta = &service.metadata;
    let body = json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers},
        "status": {"loadBalancer": balancer},
    });
    Op::patch(Target::of(service), Some("status"), PatchBody::Merge(body)).into()
}

/// The addresses that the Service has, as far as they are this controller's.
fn addresses_of(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_ref()).into_iter().flatten();
    ingress.map(|i: &LoadBalancerIngress| i.ip.clone().unwrap_or_default()).collect()
}
