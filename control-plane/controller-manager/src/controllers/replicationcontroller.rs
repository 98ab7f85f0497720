//! replicationcontroller-controller: the older form of replica sets, decided by the same code.

use client::{Key, Plan, WorkQueue};
use facts::labels::{self, Selector};
use k8s_openapi::api::core::v1::{
    Pod, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

use super::replicaset::replicas::{self, Condition, REPLICA_FAILURE, Set, Status, View};
use super::replicaset::watch_pods;
use crate::common::owners::{self, OWNER, by_owner};
use crate::common::{acts, count};
use crate::runner::Work;
use crate::setup::{Setup, Shared};

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<Pod>(OWNER, by_owner);
    let sets = setup.queue_own::<ReplicationController>(&queue);
    let pods = watch_pods::<ReplicationController>(setup, &queue, sets.clone(), selector_of);
    let executor = setup.executor("replication-controller");
    let workers = setup.config.concurrency.replicationcontroller;
    let (failed_sets, failed_pods) = (sets.clone(), pods.clone());
    let work = Work::new(&queue, executor, workers, move |key, now| {
        let Some(set) = sets.get(key) else { return Plan::default() };
        let outcome = replicas::reconcile(&view(&set, &pods), set.as_ref(), now);
        let mut plan = outcome.plan;
        plan.extend(outcome.status.into_iter().flat_map(|s| write_status(&set, s).steps));
        plan
    });
    setup.run(work.on_failure(move |key, error, now| {
        let Some(set) = failed_sets.get(key) else { return Plan::default() };
        let outcome = replicas::after_failure(&view(&set, &failed_pods), error, now);
        outcome.status.map(|s| write_status(&set, s)).unwrap_or_default()
    }));
}

fn selector_of(set: &ReplicationController) -> Selector {
    let labels = set.spec.as_ref().and_then(|s| s.selector.as_ref());
    labels.filter(|l| !l.is_empty()).map_or_else(Selector::nothing, labels::equal_to)
}

fn view(set: &ReplicationController, pods: &Shared<Pod>) -> View {
    let candidates = owners::candidates(pods, &set.metadata, &selector_of(set));
    View { set: neutral(set), candidates, related: Vec::new() }
}

fn neutral(set: &ReplicationController) -> Set {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let failure = status.conditions.iter().flatten().find(|c| c.type_ == REPLICA_FAILURE);
    Set {
        owner: owners::owner_reference(set),
        reference: client::reference(set),
        meta: set.metadata.clone(),
        replicas: spec.replicas.unwrap_or(1),
        min_ready: count(spec.min_ready_seconds),
        selector: selector_of(set),
        template: spec.template.unwrap_or_default(),
        status: Status {
            replicas: status.replicas,
            fully_labeled: count(status.fully_labeled_replicas),
            ready: count(status.ready_replicas),
            available: count(status.available_replicas),
            terminating: None,
            observed_generation: status.observed_generation.unwrap_or(0),
            failure: failure.map(|c| Condition {
                reason: c.reason.clone().unwrap_or_default(),
                message: c.message.clone().unwrap_or_default(),
                since: c.last_transition_time.clone(),
            }),
        },
        counts_terminating: false,
    }
}

fn write_status(set: &ReplicationController, status: Status) -> Plan {
    let mut set = set.clone();
    let known = set.status.take().unwrap_or_default();
    let mut conditions = known.conditions.unwrap_or_default();
    conditions.retain(|c| c.type_ != REPLICA_FAILURE);
    if let Some(failure) = status.failure {
        conditions.push(ReplicationControllerCondition {
            type_: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        });
    }
    set.status = Some(ReplicationControllerStatus {
        replicas: status.replicas,
        fully_labeled_replicas: Some(status.fully_labeled),
        ready_replicas: Some(status.ready),
        available_replicas: Some(status.available),
        observed_generation: Some(status.observed_generation),
        conditions: (!conditions.is_empty()).then_some(conditions),
    });
    let mut plan = Plan::default();
    plan.push(acts::update_status(&set));
    plan
}
