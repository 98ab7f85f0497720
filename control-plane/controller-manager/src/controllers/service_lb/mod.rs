//! service-lb-controller: where a Service of type LoadBalancer is reached. Without a pool of addresses that is at those of
//! the nodes themselves, as users of small clusters expect: this controller says which, and each node's kube-proxy answers
//! there. With one (`--load-balancer-pool`) a Service has addresses of its own, and each is announced by a node that this
//! controller elects.
//!
//! ```text
//!   Services, by age ──┐
//!   ready nodes ───────┼─ share ──> who has which port of which node ──> status.loadBalancer.ingress
//!   endpoints ─────────┘            (the older has it; node ports and the nodes' own ports are nobody's)
//!
//!   the same, and the pool ─ pool ──> whose each address is ──> status.loadBalancer.ingress
//!   signs of nodes ─ silence ─┘       who announces it ───────> annotation ferrokube.io/announced-by
//! ```
//!
//! A Service with a class of its own is left to whoever has that class. Upstream's finalizer is on a Service as long as
//! it may have addresses. A node's address is written with `ipMode: Proxy`: packets to it go there and nowhere else, so
//! that no node takes what is meant for another node's API server. One of the pool is `VIP`: the Service's alone, and every
//! node may lead packets to it. I/O: the clock, for when a sign of a node was heard.

mod pool;
#[cfg(test)]
mod pool_tests;
mod share;
mod silence;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use client::plan::Op;
use client::{Delta, Key, PatchBody, Plan, Target, WorkQueue};
use facts::announcing;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use serde_json::json;

use self::share::{Cluster, Found, is_wanted};
use self::silence::Signs;
use crate::common::acts;
use crate::runner::Work;
use crate::setup::{Setup, Shared};

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
        let gives_up = |old: &Service| share::held(old).iter().any(|address| !share::held(new).contains(address));
        let matters = match (delta, old) {
            (Delta::Updated { .. }, Some(old)) => share::claims(old) != share::claims(new) || gives_up(old),
            (Delta::Deleted(_), _) => !share::claims(new).is_empty() || !share::held(new).is_empty(),
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
    let (reserved, pool) = (setup.config.reserved_node_ports.clone(), setup.config.load_balancer_pool.clone());
    let executor = setup.executor("service-controller");
    let has_pool = !pool.is_empty();
    let signs: Arc<Mutex<Signs>> = Arc::default();
    if has_pool {
        listen(setup, &queue, &signs, services.clone());
    }
    let work = Work::new(&queue, executor, 1, move |key, _| {
        let Some(service) = services.get(key) else { return Plan::default() };
        let (all, nodes) = (services.list(), nodes.list());
        let of = |service: &Service| slices.by(BY_SERVICE, &Key::of(service).to_string());
        let silent = signs.lock().silent();
        let cluster =
            Cluster { services: &all, nodes: &nodes, slices: &of, reserved: &reserved, pool: &pool, silent: &silent };
        reconcile(&service, &cluster)
    });
    // Two Services that are looked at in one moment would be given one address.
    setup.run(if has_pool { work.serial() } else { work });
}

/// Hears the signs of nodes that announce. When one falls silent or is heard again, every Service is looked at.
fn listen(setup: &mut Setup, queue: &WorkQueue<Key>, signs: &Arc<Mutex<Signs>>, services: Shared<Service>) {
    let (queue, signs) = (queue.clone(), signs.clone());
    setup.on(move |delta: &Delta<Lease>| {
        let meta = &delta.object().metadata;
        let Some(node) = meta.name.as_deref().filter(|_| meta.namespace.as_deref() == Some(facts::nodes::LEASES))
        else {
            return;
        };
        let sign = meta.annotations.as_ref().and_then(|all| all.get(announcing::SIGN));
        let (mut signs, now) = (signs.lock(), Instant::now());
        let changed = match sign.filter(|_| !matches!(delta, Delta::Deleted(_))) {
            Some(sign) => signs.heard(node, sign, now),
            None => signs.forget(node, now),
        };
        if changed {
            tracing::info!(silent = ?signs.silent(), "nodes that say nothing announce no addresses");
            services.list().iter().filter(|s| is_wanted(s)).for_each(|s| queue.add(Key::of(s.as_ref())));
        }
    });
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// What a Service is to have.
#[derive(Debug, Default)]
struct Wish {
    addresses: Vec<String>,
    /// `ipMode` of all of them.
    mode: &'static str,
    /// What the annotation is to say.
    announced: Option<String>,
    /// Why there are none, in words for people.
    refused: Option<String>,
    /// Addresses of the pool that no node can announce.
    silent: Vec<String>,
}

fn wish(service: &Service, cluster: &Cluster<'_>) -> Wish {
    if cluster.pool.is_empty() {
        let (addresses, refused) = match share::share(service, cluster) {
            Found::Addresses(addresses) => (addresses, None),
            Found::Refused(why) => (Vec::new(), Some(why)),
        };
        return Wish { addresses, refused, mode: "Proxy", ..Wish::default() };
    }
    match pool::give(service, cluster) {
        Err(why) => Wish { refused: Some(why), ..Wish::default() },
        Ok(given) => {
            let has_node =
                |address: &std::net::IpAddr| given.announcers.iter().any(|(announced, _)| *announced == *address);
            Wish {
                addresses: given.addresses.iter().map(ToString::to_string).collect(),
                mode: "VIP",
                announced: announcing::to_say(&given.announcers),
                refused: None,
                silent: given.addresses.iter().filter(|a| !has_node(a)).map(ToString::to_string).collect(),
            }
        }
    }
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
    let wish = wish(service, cluster);
    let announced = announcing::said(service) != wish.announced.as_deref();
    if has && wish.addresses == held && !announced {
        return Plan::nothing("its addresses are as they should be");
    }
    let mut plan = Plan::default();
    if !has {
        plan.push(acts::normal(service, "EnsuringLoadBalancer", "Ensuring load balancer".to_owned()));
    }
    plan.push(patch(service, true, &wish));
    if !has || wish.addresses != held {
        plan.push(told(service, &wish, held.is_empty()));
    }
    if let Some(announced) = wish.announced.as_ref().filter(|_| announced) {
        plan.push(acts::normal(service, "NodeAssigned", format!("Announced by its node: {announced}")));
    }
    if !wish.silent.is_empty() {
        let note = "no node announces it: none that is ready is on its network, or may serve it";
        plan.push(acts::warning(service, "NoNodeToAnnounce", format!("{}: {note}", wish.silent.join(", "))));
    }
    plan
}

/// The event about other addresses.
fn told(service: &Service, wish: &Wish, is_first: bool) -> client::Action {
    match (&wish.refused, wish.addresses.is_empty(), is_first) {
        (Some(why), ..) => acts::warning(service, "SyncLoadBalancerFailed", why.clone()),
        (None, true, _) => {
            let note = "There are no available nodes for LoadBalancer";
            acts::warning(service, "UnAvailableLoadBalancer", note.to_owned())
        }
        (None, false, true) => acts::normal(service, "EnsuredLoadBalancer", "Ensured load balancer".to_owned()),
        (None, false, false) => {
            acts::normal(service, "UpdatedLoadBalancer", "Updated load balancer with new hosts".to_owned())
        }
    }
}

/// The Service wants no addresses any more: they go, and then it may.
fn let_go(service: &Service, has_addresses: bool) -> Plan {
    let mut plan = Plan::default();
    if has_addresses && service.metadata.deletion_timestamp.is_none() {
        plan.push(acts::normal(service, "DeletingLoadBalancer", "Deleting load balancer".to_owned()));
    }
    plan.push(patch(service, false, &Wish::default()));
    plan.push(acts::normal(service, "DeletedLoadBalancer", "Deleted load balancer".to_owned()));
    plan
}

/// Finalizer, addresses and who announces them at once, of this very version: finalizers are a list that others write, too.
fn patch(service: &Service, keep: bool, wish: &Wish) -> client::Action {
    let mut finalizers: Vec<&str> = service.metadata.finalizers.iter().flatten().map(String::as_str).collect();
    finalizers.retain(|f| *f != FINALIZER);
    if keep {
        finalizers.push(FINALIZER);
    }
    let ingress: Vec<_> = wish.addresses.iter().map(|ip| json!({"ip": ip, "ipMode": wish.mode})).collect();
    let balancer = if ingress.is_empty() { json!({"ingress": null}) } else { json!({"ingress": ingress}) };
    let meta = &service.metadata;
    let mut body = json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers},
        "status": {"loadBalancer": balancer},
    });
    if announcing::said(service) != wish.announced.as_deref() {
        body["metadata"]["annotations"] = json!({announcing::ANNOUNCED_BY: wish.announced});
    }
    Op::patch(Target::of(service), Some("status"), PatchBody::Merge(body)).into()
}

/// The addresses that the Service has, as far as they are this controller's.
fn addresses_of(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_ref()).into_iter().flatten();
    ingress.map(|i| i.ip.clone().unwrap_or_default()).collect()
}
