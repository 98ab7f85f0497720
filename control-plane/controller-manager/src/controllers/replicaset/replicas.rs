//! The decision of ReplicaSets and ReplicationControllers: which pods are ours, how many to make or delete, and what
//! the status says. Pure; the two kinds are brought to one neutral [`Set`].

use std::collections::HashMap;
use std::sync::Arc;

use client::{ExecuteError, Plan, Step, Verb};
use facts::labels::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;

use crate::common::{acts, owners, pods, template};

pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Pods made or deleted in one go; upstream's burst.
const BURST: usize = 500;

/// A ReplicaSet or ReplicationController.
pub struct Set {
    pub owner: OwnerReference,
    pub reference: ObjectReference,
    pub meta: ObjectMeta,
    pub replicas: i32,
    pub min_ready: i32,
    pub selector: Selector,
    pub template: PodTemplateSpec,
    pub status: Status,
    /// ReplicationControllers have no `terminatingReplicas`.
    pub counts_terminating: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: Option<i32>,
    pub observed_generation: i64,
    pub failure: Option<Condition>,
}

/// The condition `ReplicaFailure`, when true.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub reason: String,
    pub message: String,
    pub since: Option<Time>,
}

/// What the caches show.
pub struct View {
    pub set: Set,
    /// The set's pods and the orphans of its namespace.
    pub candidates: Vec<Arc<Pod>>,
    /// Pods of the other sets of the same owner: deletion spreads over nodes among all of them.
    pub related: Vec<Arc<Pod>>,
}

/// What to do, and the status to write if it changed.
pub struct Outcome {
    pub plan: Plan,
    pub status: Option<Status>,
}

/// `typed` is the object that `view.set` was made from.
pub fn reconcile<O: Resource<DynamicType = ()>>(view: &View, typed: &O, now: Timestamp) -> Outcome {
    let set = &view.set;
    let finished = |p: &Arc<Pod>| pods::is_terminal(p);
    let claim = owners::claim(typed, &set.selector, view.candidates.iter().filter(|p| !finished(p)).cloned(), None);
    let mut plan = Plan::of(claim.actions);
    let (going, active): (Vec<_>, Vec<_>) = claim.mine.into_iter().partition(|p| pods::is_terminating(p));
    if set.meta.deletion_timestamp.is_none() {
        plan.extend(scale(view, &active, now));
    } else {
        plan.because("it is being deleted: its pods are the garbage collector's");
    }
    if let Some(delay) = pods::next_available(active.iter().map(|p| p.as_ref()), set.min_ready, now) {
        plan.requeue(delay);
    }
    let status = status(set, &active, going.len(), None, now);
    Outcome { plan, status: changed(set, status) }
}

/// A step failed: the status says so, until a later reconcile succeeds.
pub fn after_failure(view: &View, error: &ExecuteError, now: Timestamp) -> Outcome {
    let set = &view.set;
    let uid = set.meta.uid.as_deref().unwrap_or("");
    let mine = view.candidates.iter().filter(|p| owners::is_controlled_by(&p.metadata, uid)).cloned();
    let (going, active): (Vec<_>, Vec<_>) =
        mine.filter(|p| !pods::is_terminal(p)).partition(|p| pods::is_terminating(p));
    let reason = match (&error.op.verb, error.op.target.resource.plural.as_str()) {
        (Verb::Create(_), "pods") => "FailedCreate",
        (Verb::Delete(_), "pods") => "FailedDelete",
        _ => return Outcome { plan: Plan::default(), status: None },
    };
    let status = status(set, &active, going.len(), Some((reason, error.message())), now);
    Outcome { plan: Plan::default(), status: changed(set, status) }
}

fn changed(set: &Set, status: Status) -> Option<Status> {
    (status != set.status).then_some(status)
}

fn scale(view: &View, active: &[Arc<Pod>], now: Timestamp) -> Vec<Step> {
    let set = &view.set;
    let wanted = usize::try_from(set.replicas).unwrap_or(0);
    if active.len() < wanted {
        let namespace = set.meta.namespace.as_deref().unwrap_or("");
        let pod = template::pod(&set.template, namespace, set.owner.clone());
        let create = acts::create_pod(&pod, &set.reference);
        let missing = (wanted - active.len()).min(BURST);
        acts::slow_start(vec![create; missing])
    } else if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        let doomed = doomed(view, active, surplus, now);
        vec![Step::Together(doomed.iter().map(|p| acts::delete_pod(p.as_ref(), &set.reference)).collect())]
    } else {
        Vec::new()
    }
}

/// The pods whose loss costs least.
fn doomed(view: &View, active: &[Arc<Pod>], surplus: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let node = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
    let mut on_node: HashMap<String, usize> = HashMap::new();
    for pod in view.related.iter().chain(active).filter(|p| pods::is_active(p)) {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    let mut ranked: Vec<(&Arc<Pod>, usize)> =
        active.iter().map(|p| (p, on_node.get(&node(p)).copied().unwrap_or(0))).collect();
    ranked.sort_by(|a, b| pods::deletion_order((a.0, a.1), (b.0, b.1), now));
    ranked.into_iter().take(surplus).map(|(p, _)| p.clone()).collect()
}

fn status(set: &Set, active: &[Arc<Pod>], going: usize, failure: Option<(&str, String)>, now: Timestamp) -> Status {
    let wanted_labels = set.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let labeled = |p: &Pod| {
        wanted_labels.is_none_or(|wanted| {
            let has = p.metadata.labels.as_ref();
            wanted.iter().all(|(k, v)| has.and_then(|l| l.get(k)) == Some(v))
        })
    };
    let n = |test: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| test(p)).count() as i32;
    Status {
        replicas: active.len() as i32,
        fully_labeled: n(&labeled),
        ready: n(&pods::is_ready),
        available: n(&|p| pods::is_available(p, set.min_ready, now)),
        terminating: set.counts_terminating.then_some(going as i32),
        observed_generation: set.meta.generation.unwrap_or(0),
        failure: failure.map(|(reason, message)| match &set.status.failure {
            // The first failure is kept until it is over, so that a repeated one writes nothing.
            Some(known) => known.clone(),
            None => Condition { reason: reason.into(), message, since: Some(Time(seconds(now))) },
        }),
    }
}

fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
