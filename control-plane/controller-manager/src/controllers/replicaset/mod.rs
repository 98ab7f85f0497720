//! replicaset-controller: as many pods as asked for, made from the template. The decision is in [`replicas`], which
//! replicationcontroller shares.

pub mod replicas;
#[cfg(test)]
mod tests;

use client::{Delta, Key, Plan, WorkQueue};
use facts::labels::{self, Selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;

use crate::common::owners::{self, OWNER, by_owner, controller_named};
use crate::common::{acts, count};
use crate::runner::Work;
use crate::setup::{Setup, Shared};
use replicas::{Condition, Outcome, Set, Status, View};

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<Pod>(OWNER, by_owner);
    setup.index::<ReplicaSet>(OWNER, by_owner);
    let sets = setup.queue_own::<ReplicaSet>(&queue);
    let pods = watch_pods::<ReplicaSet>(setup, &queue, sets.clone(), |set| labels::selector(&set.spec.selector));
    let executor = setup.executor("replicaset-controller");
    let workers = setup.config.concurrency.replicaset;
    let (failed_sets, failed_pods) = (sets.clone(), pods.clone());
    let work = Work::new(&queue, executor, workers, move |key, now| {
        let Some(set) = sets.get(key) else { return Plan::default() };
        decide(&set, &pods, &sets, now)
    });
    setup.run(work.on_failure(move |key, error, now| {
        let Some(set) = failed_sets.get(key) else { return Plan::default() };
        let view = view(&set, &failed_pods, &failed_sets);
        let outcome = replicas::after_failure(&view, error, now);
        outcome.status.map(|status| write_status(&set, status)).unwrap_or_default()
    }));
}

/// Queues the owner of each changed pod, and the sets that would adopt a changed orphan.
pub fn watch_pods<K>(
    setup: &mut Setup,
    queue: &WorkQueue<Key>,
    sets: Shared<K>,
    selector_of: fn(&K) -> Selector,
) -> Shared<Pod>
where
    K: client::informer::Watched + Resource<DynamicType = ()>,
{
    let queue = queue.clone();
    setup.on(move |delta: &Delta<Pod>| {
        let pod = delta.object();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let owner = |pod: &Pod| controller_named::<K>(&pod.metadata).map(|name| Key::new(namespace, name));
        if let Delta::Updated { old, new } = delta
            && let Some(before) = owner(old)
            && owner(new).as_ref() != Some(&before)
        {
            queue.add(before);
        }
        if let Some(owner) = owner(pod) {
            queue.add(owner);
        } else if owners::controller_of(&pod.metadata).is_none() && !matches!(delta, Delta::Deleted(_)) {
            let labels = pod.metadata.labels.as_ref();
            let adopters = sets.list_in(namespace).into_iter().filter(|s| selector_of(s).matches(&labels));
            adopters.for_each(|s| queue.add(Key::of(s.as_ref())));
        }
    })
}

fn view(set: &ReplicaSet, pods: &Shared<Pod>, sets: &Shared<ReplicaSet>) -> View {
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    let candidates = owners::candidates(pods, &set.metadata, &labels::selector(&set.spec.selector));
    let siblings = match owners::controller_of(&set.metadata) {
        Some(owner) => sets.by(OWNER, &owners::of(namespace, &owner.uid)),
        None => Vec::new(),
    };
    let others = siblings.iter().filter(|s| s.metadata.uid != set.metadata.uid);
    let related = others.flat_map(|s| pods.by(OWNER, &owners::owned_by(&s.metadata))).collect();
    View { set: neutral(set), candidates, related }
}

fn decide(set: &ReplicaSet, pods: &Shared<Pod>, sets: &Shared<ReplicaSet>, now: Timestamp) -> Plan {
    plan(set, replicas::reconcile(&view(set, pods, sets), set, now))
}

fn plan(set: &ReplicaSet, outcome: Outcome) -> Plan {
    let mut plan = outcome.plan;
    if let Some(status) = outcome.status {
        plan.extend(write_status(set, status).steps);
    }
    plan
}

fn neutral(set: &ReplicaSet) -> Set {
    let spec = set.spec.clone();
    let status = set.status.clone().unwrap_or_default();
    Set {
        owner: owners::owner_reference(set),
        reference: client::reference(set),
        meta: set.metadata.clone(),
        replicas: spec.replicas.unwrap_or(1),
        min_ready: count(spec.min_ready_seconds),
        selector: labels::selector(&spec.selector),
        template: spec.template.unwrap_or_default(),
        status: Status {
            replicas: status.replicas,
            fully_labeled: count(status.fully_labeled_replicas),
            ready: count(status.ready_replicas),
            available: count(status.available_replicas),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation.unwrap_or(0),
            failure: status
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_.as_deref() == Some(replicas::REPLICA_FAILURE))
                .map(|c| Condition {
                    reason: c.reason.clone().unwrap_or_default(),
                    message: c.message.clone().unwrap_or_default(),
                    since: c.last_transition_time.clone(),
                }),
        },
        counts_terminating: true,
    }
}

fn write_status(set: &ReplicaSet, status: Status) -> Plan {
    let mut set = set.clone();
    let known = set.status.take().unwrap_or_default();
    let mut conditions = known.conditions.unwrap_or_default();
    conditions.retain(|c| c.type_.as_deref() != Some(replicas::REPLICA_FAILURE));
    if let Some(failure) = status.failure {
        conditions.push(ReplicaSetCondition {
            type_: Some(replicas::REPLICA_FAILURE.into()),
            status: Some("True".into()),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        });
    }
    set.status = Some(ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: Some(status.fully_labeled),
        ready_replicas: Some(status.ready),
        available_replicas: Some(status.available),
        terminating_replicas: status.terminating,
        observed_generation: Some(status.observed_generation),
        conditions: (!conditions.is_empty()).then_some(conditions),
    });
    let mut plan = Plan::default();
    plan.push(acts::update_status(&set));
    plan
}
