//! statefulset-controller: pods with names, storage and an order.
//!
//! - [`identity`]: what pod and claims of one ordinal look like, and whether they still do
//! - [`ordered`]: which ordinals to make, delete or replace next

pub mod identity;
pub mod ordered;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Delta, Key, Plan, WorkQueue};
use client::{ExecuteError, Target, Verb};
use facts::labels;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::replicaset::watch_pods;
use crate::common::owners::{self, OWNER, by_owner, controller_named};
use crate::common::revisions;
use crate::common::{acts, template};
use crate::runner::Work;
use crate::setup::{Setup, Shared};
use ordered::Course;

/// Old revisions kept when the set doesn't say.
const HISTORY: i32 = 10;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<Pod>(OWNER, by_owner);
    setup.index::<ControllerRevision>(OWNER, by_owner);
    let sets = setup.queue_own::<StatefulSet>(&queue);
    let pods = watch_pods::<StatefulSet>(setup, &queue, sets.clone(), |s| labels::selector(&s.spec.selector));
    let again = queue.clone();
    let revisions = setup.on(move |delta: &Delta<ControllerRevision>| {
        let meta = &delta.object().metadata;
        if let Some(name) = controller_named::<StatefulSet>(meta) {
            again.add(Key::new(meta.namespace.clone().unwrap_or_default(), name));
        }
    });
    let claims = setup.watch::<PersistentVolumeClaim>();
    let executor = setup.executor("statefulset-controller");
    let workers = setup.config.concurrency.statefulset;
    let failed = sets.clone();
    let work = Work::new(&queue, executor, workers, move |key, now| {
        let Some(set) = sets.get(key) else { return Plan::default() };
        reconcile(&view(&set, &pods, &revisions, &claims), now)
    });
    setup.run(
        work.on_failure(move |key, error, _| failed.get(key).map(|set| after_failure(&set, error)).unwrap_or_default()),
    );
}

fn view(
    set: &Arc<StatefulSet>,
    pods: &Shared<Pod>,
    revisions: &Shared<ControllerRevision>,
    claims: &Shared<PersistentVolumeClaim>,
) -> View {
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    let mine = owners::owned_by(&set.metadata);
    let orphans = owners::orphans_of(namespace);
    let has_claims = set.spec.volume_claim_templates.as_ref().is_some_and(|t| !t.is_empty());
    View {
        set: set.clone(),
        candidates: owners::candidates(pods, &set.metadata, &labels::selector(&set.spec.selector)),
        revisions: [revisions.by(OWNER, &mine), revisions.by(OWNER, &orphans)].concat(),
        claims: if has_claims { claims.list_in(namespace) } else { Vec::new() },
    }
}

/// What the caches show of one set.
pub struct View {
    pub set: Arc<StatefulSet>,
    /// Its pods and the orphans of its namespace.
    pub candidates: Vec<Arc<Pod>>,
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// All claims of the namespace.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
}

pub fn reconcile(view: &View, now: Timestamp) -> Plan {
    let set = view.set.as_ref();
    let selector = labels::selector(&set.spec.selector);
    let adopted = owners::claim(set, &selector, view.revisions.iter().cloned(), None);
    let mut plan = Plan::of(adopted.actions);
    let source = revisions::Source {
        meta: &set.metadata,
        owner: owners::owner_reference(set),
        template: &set.spec.template,
        collisions: set.status.as_ref().and_then(|s| s.collision_count),
    };
    let known = revisions::settle(&source, adopted.mine);
    plan.extend(known.actions);
    // Only pods with a name of the set are its members, whatever their labels.
    let members = view.candidates.iter().filter(|p| identity::ordinal_in(set, p).is_some()).cloned();
    let claim = owners::claim(set, &selector, members, None);
    plan.extend(claim.actions);
    let named = set.status.as_ref().and_then(|s| s.current_revision.clone()).unwrap_or_default();
    let name = |r: &ControllerRevision| r.metadata.name.clone().unwrap_or_default();
    let current = known.old.iter().find(|r| name(r) == named).map_or(&known.current, |r| r.as_ref());
    let mut course = Course::new(set, current, &known.current, &claim.mine, &view.claims, now);
    course.decide();
    let status = course.status;
    plan.append(course.plan);
    let limit = usize::try_from(set.spec.revision_history_limit.unwrap_or(HISTORY)).unwrap_or(0);
    let live = |r: &ControllerRevision| {
        let name = name(r);
        name == named || claim.mine.iter().any(|p| identity::revision_of(p) == name)
    };
    plan.extend(revisions::forget(&known.old, limit, live));
    write_status(set, status, &mut plan);
    plan
}

fn write_status(set: &StatefulSet, mut status: StatefulSetStatus, plan: &mut Plan) {
    ordered::complete(set, &mut status);
    let mut next = set.clone();
    next.status = Some(status);
    if !template::equal(&next.status, &set.status) {
        plan.push(acts::update_status(&next));
    }
}

/// Said as upstream says it: `create Pod web-0 in StatefulSet web failed error: ...`.
fn after_failure(set: &StatefulSet, error: &ExecuteError) -> Plan {
    let mut plan = Plan::default();
    let Target { resource, name, .. } = &error.op.target;
    let kind = match resource.plural.as_str() {
        "pods" => "Pod",
        "persistentvolumeclaims" => "Claim",
        _ => return plan,
    };
    let (verb, reason) = match &error.op.verb {
        Verb::Create(_) => ("create", "FailedCreate"),
        Verb::Delete(_) => ("delete", "FailedDelete"),
        Verb::Update { .. } => ("update", "FailedUpdate"),
        Verb::Patch { .. } => ("patch", "FailedUpdate"),
        Verb::Post { .. } => return plan,
    };
    if error.is_conflict() || error.is_namespace_terminating() {
        return plan;
    }
    let of = set.metadata.name.as_deref().unwrap_or("");
    let note = format!("{verb} {kind} {name} in StatefulSet {of} failed error: {}", error.message());
    plan.push(acts::warning(set, reason, note));
    plan
}
