//! service-cidr-controller: says that a ServiceCIDR is ready, and keeps one that is being deleted as long as addresses of
//! Services would be left without any. Upstream's finalizer, conditions and times.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::plan::Op;
use client::{Action, Delta, Key, PatchBody, Plan, Target, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use meta::Prefix;
use serde_json::json;

use crate::runner::Work;
use crate::setup::Setup;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// API servers hear that a range goes before it is gone: none gives an address of it away after that.
const GRACE: Duration = Duration::from_secs(10);
const WORKERS: usize = 5;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let ranges = setup.watch::<ServiceCIDR>();
    let (mark, all) = (queue.clone(), ranges.clone());
    setup.on(move |delta: &Delta<ServiceCIDR>| {
        // One that comes or goes may decide about those that it overlaps.
        mark.add(Key::of(delta.object().as_ref()));
        let own: Vec<Prefix> = prefixes(delta.object()).collect();
        let touches = |other: &ServiceCIDR| prefixes(other).any(|p| own.iter().any(|o| o.overlaps(&p)));
        all.list().iter().filter(|other| touches(other)).for_each(|other| mark.add(Key::of(other.as_ref())));
    });
    let (mark, all) = (queue.clone(), ranges.clone());
    let addresses = setup.on(move |delta: &Delta<IPAddress>| {
        let Some(address) = managed(delta.object()) else { return };
        if matches!(delta, Delta::Updated { .. }) {
            return;
        }
        let going = |range: &ServiceCIDR| range.metadata.deletion_timestamp.is_some() && contains(range, address);
        all.list().iter().filter(|range| going(range)).for_each(|range| mark.add(Key::of(range.as_ref())));
    });
    let executor = setup.executor("service-cidr-controller");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, now| {
        let Some(range) = ranges.get(key) else { return Plan::default() };
        let all = ranges.list();
        let is_needed = || {
            let addresses = addresses.list();
            let held = addresses.iter().filter_map(|address| managed(address)).collect::<Vec<_>>();
            is_needed(&range, &all, &held)
        };
        reconcile(&range, is_needed, now)
    }));
}

fn prefixes(range: &ServiceCIDR) -> impl Iterator<Item = Prefix> + '_ {
    range.spec.iter().flat_map(|s| s.cidrs.iter().flatten()).filter_map(|c| c.parse().ok())
}

fn contains(range: &ServiceCIDR, address: IpAddr) -> bool {
    prefixes(range).any(|prefix| prefix.contains(address))
}

/// The address that an object stands for, when an API server gave it away.
fn managed(address: &IPAddress) -> Option<IpAddr> {
    let labels = address.metadata.labels.as_ref()?;
    labels.get(MANAGED_BY).filter(|by| *by == ALLOCATOR)?;
    address.metadata.name.as_deref()?.parse().ok()
}

/// Whether addresses would be in no range without this one.
fn is_needed(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], held: &[IpAddr]) -> bool {
    let others: Vec<&Arc<ServiceCIDR>> =
        all.iter().filter(|other| other.metadata.name != range.metadata.name).collect();
    let covered = prefixes(range).all(|own| others.iter().any(|other| prefixes(other).any(|p| p.covers(&own))));
    if covered {
        return false;
    }
    let alone =
        |address: &&IpAddr| contains(range, **address) && !others.iter().any(|other| contains(other, **address));
    held.iter().any(|address| alone(&address))
}

fn reconcile(range: &ServiceCIDR, is_needed: impl FnOnce() -> bool, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let has = range.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let Some(since) = &range.metadata.deletion_timestamp else {
        if !has {
            plan.push(finalizers(range, true));
        }
        let message = "Kubernetes Service CIDR is ready";
        plan.steps.extend(condition(range, "True", "", message, now).map(|action| client::Step::One(Box::new(action))));
        return plan;
    };
    if is_needed() {
        let message =
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        plan.steps.extend(
            condition(range, "False", "Terminating", message, now).map(|action| client::Step::One(Box::new(action))),
        );
        return plan;
    }
    let passed = now.duration_since(since.0);
    let left = GRACE.checked_sub(passed.try_into().unwrap_or_default()).filter(|left| !left.is_zero());
    if left.is_none() && has {
        plan.push(finalizers(range, false));
    }
    plan.requeue_after = left;
    plan
}

/// Of this very version: finalizers are a list that others write, too.
fn finalizers(range: &ServiceCIDR, keep: bool) -> Action {
    let mut all: Vec<&str> = range.metadata.finalizers.iter().flatten().map(String::as_str).collect();
    all.retain(|f| *f != FINALIZER);
    if keep {
        all.push(FINALIZER);
    }
    let meta = &range.metadata;
    let body = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": all}});
    Op::patch(Target::of(range), None, PatchBody::Merge(body)).into()
}

/// The condition `Ready`, when it says something else now.
fn condition(range: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp) -> Option<Action> {
    let mut conditions = range.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    if conditions.any(|c| {
        c.type_ == "Ready" && (c.status.as_str(), c.reason.as_str()) == (status, reason) && c.message == message
    }) {
        return None;
    }
    let ready = json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::time::format(now),
    });
    let body = json!({"metadata": {"uid": range.metadata.uid}, "status": {"conditions": [ready]}});
    Some(Op::patch(Target::of(range), Some("status"), PatchBody::Strategic(body)).into())
}

#[cfg(test)]
mod tests {
    use client::Verb;
    use serde_json::Value;
    use testkit::model::{at, from};

    use super::*;

    fn range(name: &str, cidrs: &[&str], deleting: bool) -> Arc<ServiceCIDR> {
        let mut object = json!({"metadata": {"name": name, "uid": name}, "spec": {"cidrs": cidrs}});
        if deleting {
            object["metadata"]["deletionTimestamp"] = meta::time::format(at(100)).into();
            object["metadata"]["finalizers"] = json!(["x", FINALIZER]);
        }
        Arc::new(from(object))
    }

    fn bodies(plan: &Plan) -> Vec<Value> {
        let actions = plan.steps.iter().flat_map(|step| step.actions());
        actions
            .map(|action| match action {
                Action::Do(op) => match &op.verb {
                    Verb::Patch { patch: PatchBody::Merge(body) | PatchBody::Strategic(body), .. } => body.clone(),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_range_is_held_and_ready() {
        let made = bodies(&reconcile(&range("a", &["10.0.0.0/16"], false), || panic!("not asked"), at(0)));
        assert_eq!(made[0]["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(made[1]["status"]["conditions"][0]["status"], "True");
    }

    #[test]
    fn one_that_goes_stays_while_addresses_need_it() {
        let gone = range("a", &["10.0.0.0/16"], true);
        let held = bodies(&reconcile(&gone, || true, at(200)));
        assert_eq!(held[0]["status"]["conditions"][0]["reason"], "Terminating");
        let soon = reconcile(&gone, || false, at(104));
        assert_eq!((soon.steps.len(), soon.requeue_after), (0, Some(Duration::from_secs(6))));
        assert_eq!(bodies(&reconcile(&gone, || false, at(111)))[0]["metadata"]["finalizers"], json!(["x"]));
    }

    #[test]
    fn what_another_range_has_needs_nobody() {
        let addresses: Vec<IpAddr> = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let own = range("own", &["10.0.0.0/24", "fd00::/64"], true);
        let needed =
            |others: &[Arc<ServiceCIDR>]| is_needed(&own, &[std::slice::from_ref(&own), others].concat(), &addresses);
        assert!(needed(&[]));
        assert!(needed(&[range("v4", &["10.0.0.0/16"], false)]), "the other family's address is alone");
        assert!(!needed(&[range("both", &["10.0.0.0/16", "fd00::/56"], false)]));
        assert!(!is_needed(&own, std::slice::from_ref(&own), &["10.1.0.1".parse().unwrap()]));
    }
}
