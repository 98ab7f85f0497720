//! daemonset-controller: one pod on every node that the template fits.
//!
//! - [`nodes`]: which nodes should have a pod, and what a pod for one node looks like
//! - [`manage`]: pods to make and delete so that it is so
//! - [`update`]: replacing pods of an older revision

pub mod manage;
pub mod nodes;
#[cfg(test)]
mod tests;
pub mod update;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Delta, Key, Plan, WorkQueue};
use facts::labels;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;

use super::replicaset::watch_pods;
use crate::common::backoff::Backoff;
use crate::common::owners::{self, OWNER, by_owner, controller_named};
use crate::common::revisions::{self, HASH};
use crate::common::{acts, count, pods, template};
use crate::runner::Work;
use crate::setup::{Setup, Shared};

/// A pod that failed on a node is replaced after this long, then after twice as long each time.
const FAILED_FIRST: Duration = Duration::from_secs(1);
const FAILED_MOST: Duration = Duration::from_secs(15 * 60);

/// Old revisions kept when the set doesn't say.
const HISTORY: i32 = 10;

/// Waiting times of failed pods, by set (uid) and node.
pub type Failed = Backoff<(String, String)>;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<Pod>(OWNER, by_owner);
    setup.index::<ControllerRevision>(OWNER, by_owner);
    let sets = setup.queue_own::<DaemonSet>(&queue);
    let pods = watch_pods::<DaemonSet>(setup, &queue, sets.clone(), |s| labels::selector(&s.spec.selector));
    let revisions = watch_revisions(setup, &queue);
    let nodes = watch_nodes(setup, &queue, sets.clone());
    let executor = setup.executor("daemonset-controller");
    let workers = setup.config.concurrency.daemonset;
    let failed = Mutex::new(Failed::new(FAILED_FIRST, FAILED_MOST));
    setup.run(Work::new(&queue, executor, workers, move |key, now| {
        let Some(set) = sets.get(key) else { return Plan::default() };
        let view = view(&set, &pods, &revisions, nodes.list());
        reconcile(&view, &mut failed.lock(), now)
    }));
}

fn watch_revisions(setup: &mut Setup, queue: &WorkQueue<Key>) -> Shared<ControllerRevision> {
    let queue = queue.clone();
    setup.on(move |delta: &Delta<ControllerRevision>| {
        let meta = &delta.object().metadata;
        if let Some(name) = controller_named::<DaemonSet>(meta) {
            queue.add(Key::new(meta.namespace.clone().unwrap_or_default(), name));
        }
    })
}

/// A node that came, went or changed for a set wakes the set.
fn watch_nodes(setup: &mut Setup, queue: &WorkQueue<Key>, sets: Shared<DaemonSet>) -> Shared<Node> {
    let queue = queue.clone();
    setup.on(move |delta: &Delta<Node>| {
        for set in sets.list() {
            let fits = |n: &Node| nodes::fit(&set, n);
            let changed = match delta {
                Delta::Updated { old, new } => fits(old) != fits(new),
                Delta::Added(node) => fits(node).runs,
                Delta::Deleted(_) => true,
            };
            if changed {
                queue.add(Key::of(set.as_ref()));
            }
        }
    })
}

fn view(
    set: &Arc<DaemonSet>,
    pods: &Shared<Pod>,
    revisions: &Shared<ControllerRevision>,
    nodes: Vec<Arc<Node>>,
) -> View {
    let mine = owners::owned_by(&set.metadata);
    let orphans = owners::orphans_of(set.metadata.namespace.as_deref().unwrap_or(""));
    View {
        set: set.clone(),
        candidates: owners::candidates(pods, &set.metadata, &labels::selector(&set.spec.selector)),
        revisions: revisions.by(OWNER, &mine),
        orphan_revisions: revisions.by(OWNER, &orphans),
        nodes,
    }
}

/// What the caches show of one set.
pub struct View {
    pub set: Arc<DaemonSet>,
    /// Its pods and the orphans of its namespace.
    pub candidates: Vec<Arc<Pod>>,
    pub revisions: Vec<Arc<ControllerRevision>>,
    pub orphan_revisions: Vec<Arc<ControllerRevision>>,
    pub nodes: Vec<Arc<Node>>,
}

/// The set's pods by the node that they are on, or are meant for.
pub type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// What a decision works with.
pub struct Course<'a> {
    pub set: &'a DaemonSet,
    /// Hash of the current revision.
    pub hash: String,
    pub pods: ByNode,
    pub nodes: &'a [Arc<Node>],
    pub now: Timestamp,
}

pub fn reconcile(view: &View, failed: &mut Failed, now: Timestamp) -> Plan {
    let set = view.set.as_ref();
    let mut plan = Plan::default();
    let selector = labels::selector(&set.spec.selector);
    if selector.is_everything() {
        let note = "This daemon set is selecting all pods. A non-empty selector is required.".into();
        plan.push(acts::warning(set, "SelectingAll", note));
        return plan;
    }
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("it is being deleted: its pods are the garbage collector's");
    }
    let adopted = owners::claim(set, &selector, view.revisions.iter().chain(&view.orphan_revisions).cloned(), None);
    plan.extend(adopted.actions);
    let source = revisions::Source {
        meta: &set.metadata,
        owner: owners::owner_reference(set),
        template: &set.spec.template,
        collisions: set.status.as_ref().and_then(|s| s.collision_count),
    };
    let known = revisions::settle(&source, adopted.mine);
    plan.extend(known.actions);
    let claim = owners::claim(set, &selector, view.candidates.iter().cloned(), None);
    plan.extend(claim.actions);
    let hash = revisions::hash_of(&known.current).to_owned();
    let course = Course { set, hash, pods: by_node(claim.mine), nodes: &view.nodes, now };
    let mut changes = manage::changes(&course, failed, &mut plan);
    if changes.is_empty() && is_rolling(set) {
        changes = update::changes(&course);
    }
    plan.extend(changes.steps(&course));
    let limit = set.spec.revision_history_limit.unwrap_or(HISTORY);
    let live = |r: &ControllerRevision| {
        let hash = revisions::hash_of(r);
        course.pods.values().flatten().any(|p| revision_of(p) == hash)
    };
    plan.extend(revisions::forget(&known.old, usize::try_from(limit).unwrap_or(0), live));
    status(&course, &mut plan);
    plan
}

fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref());
    strategy != Some("OnDelete")
}

fn by_node(all: Vec<Arc<Pod>>) -> ByNode {
    let mut by_node = ByNode::new();
    for pod in all {
        if let Some(node) = nodes::target(&pod) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|p| {
            (pods::phase(p) == "Pending", p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone())
        });
    }
    by_node
}

pub fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|l| l.get(HASH)).map_or("", String::as_str)
}

fn status(course: &Course, plan: &mut Plan) {
    let set = course.set;
    let min_ready = count(set.spec.min_ready_seconds);
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: set.status.as_ref().and_then(|s| s.collision_count),
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for node in course.nodes {
        let name = node.metadata.name.as_deref().unwrap_or("");
        let pod = course.pods.get(name).and_then(|p| p.first());
        if !nodes::fit(set, node).runs {
            status.number_misscheduled += i32::from(pod.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = pod else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        available += i32::from(pods::is_available(pod, min_ready, course.now));
        updated += i32::from(revision_of(pod) == course.hash);
    }
    let some = |n: i32| (n != 0).then_some(n);
    status.updated_number_scheduled = some(updated);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    if let Some(delay) = pods::next_available(course.pods.values().flatten().map(|p| p.as_ref()), min_ready, course.now)
    {
        plan.requeue(delay);
    }
    let mut next = set.clone();
    next.status = Some(status);
    if !template::equal(&next.status, &set.status) {
        plan.push(acts::update_status(&next));
    }
}
