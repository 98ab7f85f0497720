//! disruption-controller: how many pods of a budget may go now; eviction asks its status. Keys are budgets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Delta, Key, Plan, WorkQueue};
use facts::labels::{self, Selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::deployment::scaled;
use crate::common::owners::{controller_named, controller_of, is_meant};
use crate::common::{acts, pods, template};
use crate::runner::Work;
use crate::setup::{Setup, Shared};

/// An eviction that was allowed counts as done for this long, until the pod is seen to go.
const EVICTION_SEEN: Duration = Duration::from_secs(120);

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let budgets = setup.queue_own::<PodDisruptionBudget>(&queue);
    let (again, all) = (queue.clone(), budgets.clone());
    let pods = setup.on(move |delta: &Delta<Pod>| {
        let pod = delta.object();
        let of_namespace = all.list_in(pod.metadata.namespace.as_deref().unwrap_or(""));
        let covers = |b: &PodDisruptionBudget| selector(b).matches(&pod.metadata.labels);
        of_namespace.iter().filter(|b| covers(b)).for_each(|b| again.add(Key::of(b.as_ref())));
    });
    let scales = Scales::watch(setup, &queue, &budgets);
    let executor = setup.executor("controllermanager");
    setup.run(Work::new(&queue, executor, 1, move |key, now| {
        let Some(budget) = budgets.get(key) else { return Plan::default() };
        let selector = selector(&budget);
        let covered = pods.list_labelled(&key.namespace, |labels| selector.matches(labels));
        reconcile(&budget, &covered, |p| scales.of(p), now)
    }));
}

fn selector(budget: &PodDisruptionBudget) -> Selector {
    labels::selector(budget.spec.as_ref().and_then(|s| s.selector.as_ref()))
}

/// Who says how many pods there should be.
struct Scales {
    sets: Shared<ReplicaSet>,
    deployments: Shared<Deployment>,
    stateful: Shared<StatefulSet>,
    controllers: Shared<ReplicationController>,
}

impl Scales {
    /// A changed scale concerns all budgets of its namespace.
    fn watch(setup: &mut Setup, queue: &WorkQueue<Key>, budgets: &Shared<PodDisruptionBudget>) -> Scales {
        fn on<K>(setup: &mut Setup, queue: &WorkQueue<Key>, budgets: &Shared<PodDisruptionBudget>) -> Shared<K>
        where
            K: client::informer::Watched + kube::Resource<DynamicType = ()>,
        {
            let (queue, budgets) = (queue.clone(), budgets.clone());
            setup.on(move |delta: &Delta<K>| {
                let meta = delta.object().meta();
                if let Delta::Updated { old, .. } = delta
                    && old.meta().generation == meta.generation
                {
                    return;
                }
                let namespace = meta.namespace.as_deref().unwrap_or("");
                budgets.list_in(namespace).iter().for_each(|b| queue.add(Key::of(b.as_ref())));
            })
        }
        Scales {
            sets: on(setup, queue, budgets),
            deployments: on(setup, queue, budgets),
            stateful: on(setup, queue, budgets),
            controllers: on(setup, queue, budgets),
        }
    }

    /// The uid and scale of the pod's topmost controller; the error says why there is none.
    fn of(&self, pod: &Pod) -> Result<(String, i32), String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let name = pod.metadata.name.as_deref().unwrap_or("");
        let Some(owner) = controller_of(&pod.metadata) else {
            return Err(format!("found no controllers for pod {name:?}"));
        };
        let missing = || format!("{} {}/{} of pod {name:?} does not exist", owner.kind, namespace, owner.name);
        let one = Some(1);
        if controller_named::<ReplicaSet>(&pod.metadata).is_some() {
            let set = self.sets.get_in(namespace, &owner.name).filter(|s| is_meant(owner, s.as_ref()));
            let set = set.ok_or_else(missing)?;
            let above =
                controller_of(&set.metadata).filter(|_| controller_named::<Deployment>(&set.metadata).is_some());
            let deployment =
                above.and_then(|o| self.deployments.get_in(namespace, &o.name).filter(|d| is_meant(o, d.as_ref())));
            return match deployment {
                Some(d) => Ok((d.metadata.uid.clone().unwrap_or_default(), d.spec.replicas.or(one).unwrap_or(1))),
                None => Ok((owner.uid.clone(), set.spec.replicas.unwrap_or(1))),
            };
        }
        if controller_named::<StatefulSet>(&pod.metadata).is_some() {
            let set = self.stateful.get_in(namespace, &owner.name).filter(|s| is_meant(owner, s.as_ref()));
            let set = set.ok_or_else(missing)?;
            return Ok((owner.uid.clone(), set.spec.replicas.unwrap_or(1)));
        }
        if controller_named::<ReplicationController>(&pod.metadata).is_some() {
            let set = self.controllers.get_in(namespace, &owner.name).filter(|s| is_meant(owner, s.as_ref()));
            let set = set.ok_or_else(missing)?;
            return Ok((owner.uid.clone(), set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)));
        }
        Err(format!(
            "{} {}/{} of pod {name:?} does not implement the scale subresource",
            owner.kind, namespace, owner.name
        ))
    }
}

fn reconcile(
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    scale: impl Fn(&Pod) -> Result<(String, i32), String>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let mut status = budget.status.clone().unwrap_or_default();
    if covered.is_empty() && budget.status.is_none() {
        plan.push(acts::normal(budget, "NoPods", "No matching pods found".into()));
    }
    match expected(budget, covered, scale) {
        Ok((expected, desired)) => {
            let disrupted = still_disrupted(&status, covered, now, &mut plan);
            count(&mut status, covered, &disrupted, expected, desired);
            status.disrupted_pods = (!disrupted.is_empty()).then_some(disrupted);
            status.observed_generation = budget.metadata.generation;
            let enough = status.disruptions_allowed > Some(0);
            let reason = if enough { "SufficientPods" } else { "InsufficientPods" };
            set(&mut status, budget, enough, reason, "", now);
        }
        Err(why) => {
            let note = format!("Failed to calculate the number of expected pods: {why}");
            plan.push(acts::warning(budget, "CalculateExpectedPodCountFailed", note));
            status.disruptions_allowed = Some(0);
            set(&mut status, budget, false, "SyncFailed", &why, now);
        }
    }
    let mut next = budget.clone();
    next.status = Some(status);
    if template::equal(&next.status, &budget.status) {
        // What was said before stands; it is not said again.
        plan.steps.clear();
    } else {
        plan.push(acts::update_status(&next));
    }
    plan
}

/// How many pods there should be, and how many of them healthy.
fn expected(
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    scale: impl Fn(&Pod) -> Result<(String, i32), String>,
) -> Result<(i32, i32), String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let by_scale = || -> Result<i32, String> {
        let mut scales = BTreeMap::new();
        for pod in covered {
            let (uid, n) = scale(pod)?;
            scales.insert(uid, n);
        }
        Ok(scales.values().sum())
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let all = by_scale()?;
            Ok((all, (all - scaled(most, all, true)).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Ok((covered.len() as i32, *least)),
        (None, Some(least)) => {
            let all = by_scale()?;
            Ok((all, scaled(least, all, true)))
        }
        (None, None) => Ok((covered.len() as i32, 0)),
    }
}

fn still_disrupted(
    status: &PodDisruptionBudgetStatus,
    covered: &[Arc<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let mut left = BTreeMap::new();
    for (name, at) in status.disrupted_pods.iter().flatten() {
        let there = covered.iter().any(|p| p.metadata.name.as_ref() == Some(name) && !pods::is_terminating(p));
        let wait = at.0.as_second() + EVICTION_SEEN.as_secs() as i64 - now.as_second();
        if there && wait > 0 {
            plan.requeue(Duration::from_secs(wait as u64));
            left.insert(name.clone(), at.clone());
        }
    }
    left
}

fn count(
    status: &mut PodDisruptionBudgetStatus,
    covered: &[Arc<Pod>],
    disrupted: &BTreeMap<String, Time>,
    expected: i32,
    desired: i32,
) {
    let going =
        |p: &Pod| pods::is_terminating(p) || p.metadata.name.as_ref().is_some_and(|n| disrupted.contains_key(n));
    let healthy = covered.iter().filter(|p| pods::is_ready(p) && !going(p)).count() as i32;
    status.expected_pods = Some(expected);
    status.desired_healthy = Some(desired);
    status.current_healthy = Some(healthy);
    status.disruptions_allowed = Some(if expected <= 0 { 0 } else { (healthy - desired).max(0) });
}

fn set(
    status: &mut PodDisruptionBudgetStatus,
    budget: &PodDisruptionBudget,
    is: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let is = if is { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let at = conditions.iter().position(|c| c.type_ == "DisruptionAllowed");
    let known = at.map(|n| conditions.remove(n));
    let since = known.filter(|c| c.status == is).map(|c| c.last_transition_time);
    conditions.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: is.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use testkit::model::{World, from};

    fn world(spec: Value, ready: &[bool]) -> World {
        let mut world = World::default();
        world.put(&from::<PodDisruptionBudget>(json!({"metadata": {"name": "b", "namespace": "ns"}, "spec": spec})));
        for (n, ready) in ready.iter().enumerate() {
            world.put(&from::<Pod>(json!({
                "metadata": {"name": format!("p{n}"), "namespace": "ns"},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if *ready { "True" } else { "False" }}]}
            })));
        }
        world
    }

    fn step(world: &World) -> Plan {
        let budget = world.get::<PodDisruptionBudget>("ns", "b").unwrap();
        reconcile(&budget, &world.list(), |_| Ok(("owner".into(), 4)), world.now)
    }

    fn allowed(world: &World) -> (i32, String) {
        let status = world.get::<PodDisruptionBudget>("ns", "b").unwrap().status.clone().unwrap();
        (status.disruptions_allowed.unwrap(), status.conditions.unwrap()[0].reason.clone())
    }

    #[test]
    fn what_is_healthy_above_the_least_may_go() {
        for (spec, ready, wanted) in [
            (json!({"minAvailable": 2}), vec![true, true, true], (1, "SufficientPods")),
            (json!({"minAvailable": 2}), vec![true, true, false], (0, "InsufficientPods")),
            (json!({"minAvailable": "50%"}), vec![true, true, true, true], (2, "SufficientPods")),
            (json!({"maxUnavailable": 1}), vec![true, true, true, false], (0, "InsufficientPods")),
            (json!({"maxUnavailable": "25%"}), vec![true; 4], (1, "SufficientPods")),
            (json!({"minAvailable": 0}), vec![], (0, "InsufficientPods")),
        ] {
            let mut world = world(spec.clone(), &ready);
            world.settle(step);
            assert_eq!(allowed(&world), (wanted.0, wanted.1.to_owned()), "{spec}");
        }
    }

    #[test]
    fn an_eviction_under_way_counts_until_it_is_seen() {
        let mut world = world(json!({"minAvailable": 1}), &[true, true]);
        let now = world.now;
        world.edit::<PodDisruptionBudget>("ns", "b", |b| {
            let status = b.status.get_or_insert_default();
            status.disrupted_pods = Some([("p0".to_owned(), Time(now))].into());
        });
        world.settle(step);
        assert_eq!(allowed(&world).0, 0);
        assert_eq!(step(&world).requeue_after, Some(EVICTION_SEEN));
        world.advance(120);
        world.settle(step);
        assert_eq!(allowed(&world).0, 1);
    }
}
