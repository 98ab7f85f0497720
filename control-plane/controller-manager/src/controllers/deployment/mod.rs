//! deployment-controller: replica sets as revisions of a template, and the way from one to the next.
//!
//! - [`revision`]: which replica set is the new one; its name, labels, annotations, revision numbers, history
//! - [`rollout`]: how many replicas each set gets now: rolling update, recreate, proportional scaling
//! - [`status`]: counts and conditions, and the progress deadline

pub mod revision;
pub mod rollout;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Delta, ExecuteError, Key, Plan, Target, Verb, WorkQueue};
use facts::labels::{self, Selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::common::owners::{self, OWNER, by_owner, controller_named};
use crate::common::{acts, count};
use crate::runner::Work;
use crate::setup::{Setup, Shared};

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<ReplicaSet>(OWNER, by_owner);
    setup.index::<Pod>(OWNER, by_owner);
    let deployments = setup.queue_own::<Deployment>(&queue);
    let sets = watch_sets(setup, &queue, deployments.clone());
    let pods = watch_pods(setup, &queue, deployments.clone(), sets.clone());
    let executor = setup.executor("deployment-controller");
    let workers = setup.config.concurrency.deployment;
    let (failed, failed_sets) = (deployments.clone(), sets.clone());
    let work = Work::new(&queue, executor, workers, move |key, now| {
        let Some(deployment) = deployments.get(key) else { return Plan::default() };
        reconcile(&view(deployment, &sets, &pods), now)
    });
    setup.run(work.on_failure(move |key, error, now| {
        let Some(deployment) = failed.get(key) else { return Plan::default() };
        after_failure(&deployment, error, |name| failed_sets.get_in(&key.namespace, name), now)
    }));
}

fn watch_sets(setup: &mut Setup, queue: &WorkQueue<Key>, deployments: Shared<Deployment>) -> Shared<ReplicaSet> {
    let queue = queue.clone();
    setup.on(move |delta: &Delta<ReplicaSet>| {
        let set = delta.object();
        let namespace = set.metadata.namespace.as_deref().unwrap_or("");
        let owner = |s: &ReplicaSet| controller_named::<Deployment>(&s.metadata).map(|n| Key::new(namespace, n));
        if let Delta::Updated { old, new } = delta
            && let Some(before) = owner(old)
            && owner(new).as_ref() != Some(&before)
        {
            queue.add(before);
        }
        if let Some(owner) = owner(set) {
            queue.add(owner);
        } else if owners::controller_of(&set.metadata).is_none() && !matches!(delta, Delta::Deleted(_)) {
            let labels = set.metadata.labels.as_ref();
            let adopters = deployments.list_in(namespace).into_iter();
            adopters.filter(|d| selector(d).matches(&labels)).for_each(|d| queue.add(Key::of(d.as_ref())));
        }
    })
}

/// The last old pod gone is what a recreating deployment waits for.
fn watch_pods(
    setup: &mut Setup,
    queue: &WorkQueue<Key>,
    deployments: Shared<Deployment>,
    sets: Shared<ReplicaSet>,
) -> Shared<Pod> {
    let queue = queue.clone();
    setup.on(move |delta: &Delta<Pod>| {
        let Delta::Deleted(pod) = delta else { return };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let set = controller_named::<ReplicaSet>(&pod.metadata).and_then(|name| sets.get_in(namespace, name));
        let owner = set.and_then(|s| Some(Key::new(namespace, controller_named::<Deployment>(&s.metadata)?)));
        if let Some(owner) = owner
            && deployments.get(&owner).is_some_and(|d| is_recreate(&d))
        {
            queue.add(owner);
        }
    })
}

fn view(deployment: Arc<Deployment>, sets: &Shared<ReplicaSet>, pods: &Shared<Pod>) -> View {
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
    let mut candidates = sets.by(OWNER, &owners::owned_by(&deployment.metadata));
    let mut backing = Vec::new();
    if is_recreate(&deployment) {
        backing = candidates.iter().flat_map(|s| pods.by(OWNER, &owners::owned_by(&s.metadata))).collect();
    }
    candidates.extend(sets.by(OWNER, &owners::orphans_of(namespace)));
    View { deployment, candidates, pods: backing }
}

/// What the caches show of one deployment.
pub struct View {
    pub deployment: Arc<Deployment>,
    /// Its replica sets and the orphans of its namespace.
    pub candidates: Vec<Arc<ReplicaSet>>,
    /// The pods of its replica sets; only looked at when it recreates.
    pub pods: Vec<Arc<Pod>>,
}

/// What is being decided: the sets as they will be once the plan so far is done.
pub struct SyncContext<'a> {
    pub deployment: &'a Deployment,
    pub old: Vec<ReplicaSet>,
    pub new: Option<ReplicaSet>,
    pub plan: Plan,
    pub now: Timestamp,
}

impl SyncContext<'_> {
    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }
}

pub fn reconcile(view: &View, now: Timestamp) -> Plan {
    let deployment = view.deployment.as_ref();
    let selector = selector(deployment);
    if selector.is_everything() {
        let note = "This deployment is selecting all pods. A non-empty selector is required.".into();
        return Plan::of([acts::warning(deployment, "SelectingAll", note)]);
    }
    let claim = owners::claim(deployment, &selector, view.candidates.iter().cloned(), None);
    let sets: Vec<ReplicaSet> = claim.mine.iter().map(|s| s.as_ref().clone()).collect();
    let (new, old) = revision::split(deployment, sets);
    let plan = Plan::of(claim.actions);
    let mut work = SyncContext { deployment, old, new, plan, now };
    if deployment.metadata.deletion_timestamp.is_some() {
        work.plan.because("it is being deleted");
        status::write(&mut work);
        return work.plan;
    }
    let paused = deployment.spec.paused == Some(true);
    if paused || rollout::is_scaling(&work) {
        work.plan.because(if paused { "it is paused" } else { "it is being scaled: no rollout meanwhile" });
        revision::keep(&mut work, false);
        rollout::scale(&mut work);
        if paused {
            revision::clean_up(&mut work);
        }
        status::write(&mut work);
    } else if is_recreate(deployment) {
        rollout::recreate(&mut work, &view.pods);
        status::write_rollout(&mut work);
    } else {
        rollout::rolling(&mut work);
        status::write_rollout(&mut work);
    }
    work.plan
}

/// Creating the new set failed: either its name is taken (then the next try hashes to another) or the server refused.
fn after_failure(
    deployment: &Deployment,
    error: &ExecuteError,
    find: impl Fn(&str) -> Option<Arc<ReplicaSet>>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Target { resource, name, .. } = &error.op.target;
    if !matches!(error.op.verb, Verb::Create(_)) || resource.plural != "replicasets" {
        return plan;
    }
    let mut next = deployment.clone();
    let status = next.status.get_or_insert_default();
    if error.is_already_exists() {
        let Some(found) = find(name) else { return plan };
        let uid = deployment.metadata.uid.as_deref().unwrap_or("");
        if owners::is_controlled_by(&found.metadata, uid) && revision::is_of(deployment, &found) {
            return plan;
        }
        status.collision_count = Some(count(status.collision_count) + 1);
        plan.push(acts::update_status(&next));
    } else if !error.is_namespace_terminating() {
        let note = format!("Failed to create new replica set {name:?}: {}", error.message());
        if status::has_deadline(deployment) {
            let conditions = status.conditions.get_or_insert_default();
            status::set(conditions, status::PROGRESSING, "False", "ReplicaSetCreateError", &note, now);
            if next != *deployment {
                plan.push(acts::update_status(&next));
            }
        }
        plan.push(acts::warning(deployment, "FailedCreate", note));
    }
    plan
}

fn selector(deployment: &Deployment) -> Selector {
    labels::selector(&deployment.spec.selector)
}

pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// Replicas allowed above, and missing below, the wanted number while rolling.
pub fn slack(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let wanted = replicas(deployment);
    let strategy = deployment.spec.strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.clone()).unwrap_or_default();
    let quarter = || IntOrString::String("25%".into());
    let surge = scaled(&rolling.max_surge.unwrap_or_else(quarter), wanted, true);
    let unavailable = scaled(&rolling.max_unavailable.unwrap_or_else(quarter), wanted, false);
    // Both zero would never move.
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    (surge, unavailable.min(wanted))
}

/// A number, or a percentage of `total`.
pub fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let parts = i64::from(total).saturating_mul(percent).saturating_add(if up { 99 } else { 0 });
            i32::try_from(parts / 100).unwrap_or(i32::MAX)
        }
    }
}
