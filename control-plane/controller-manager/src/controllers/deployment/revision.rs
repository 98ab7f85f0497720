//! Replica sets as revisions of a deployment: which one is new, what a new one looks like, numbers and history kept in
//! annotations, and how many old ones are kept. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{SyncContext, replicas, rollout, slack, status};
use crate::common::template::{self, POD_TEMPLATE_HASH};
use crate::common::{acts, count, owners};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of the deployment that say nothing about a revision.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Longest `revision-history`; the oldest numbers are dropped.
const LONGEST_HISTORY: usize = 2000;

/// The set of the current template (the oldest, should there be several) and all others, oldest first.
pub fn split(deployment: &Deployment, mut sets: Vec<ReplicaSet>) -> (Option<ReplicaSet>, Vec<ReplicaSet>) {
    sets.sort_by(|a, b| {
        let age = |s: &ReplicaSet| s.metadata.creation_timestamp.as_ref().map(|t| t.0);
        age(a).cmp(&age(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    let new = sets.iter().position(|s| is_of(deployment, s)).map(|n| sets.remove(n));
    (new, sets)
}

pub fn is_of(deployment: &Deployment, set: &ReplicaSet) -> bool {
    set.spec.template.as_ref().is_some_and(|t| template::same(t, &deployment.spec.template))
}

pub fn number(meta: &ObjectMeta) -> i64 {
    note(meta, REVISION).and_then(|v| v.parse().ok()).unwrap_or(0)
}

pub fn note<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Keeps the new set's annotations right, or makes the new set if there is none and `create` says so. Afterwards
/// the deployment carries the new revision's number.
pub fn keep(sync: &mut SyncContext, create: bool) {
    let revision = sync.old.iter().map(|s| number(&s.metadata)).max().unwrap_or(0) + 1;
    if let Some(set) = &mut sync.new {
        let before = set.clone();
        annotate(sync.deployment, set, revision);
        set.spec.min_ready_seconds = sync.deployment.spec.min_ready_seconds;
        if *set != before && (set.metadata.annotations != before.metadata.annotations || ready_differs(set, &before)) {
            sync.plan.push(acts::update(set));
            // The set's version moves on with this write; a second write in this plan would conflict with it.
            set.metadata.resource_version = None;
        }
    } else if create {
        let set = make(sync, revision);
        sync.plan.push(acts::create(&set));
        let scale = set.spec.replicas.unwrap_or(0);
        if scale > 0 {
            let name = set.metadata.name.as_deref().unwrap_or("");
            let text = format!("Scaled up replica set {name} from 0 to {scale}");
            sync.plan.push(acts::normal(sync.deployment, "ScalingReplicaSet", text));
        }
        sync.new = Some(set);
    }
}

fn ready_differs(a: &ReplicaSet, b: &ReplicaSet) -> bool {
    let ready = |s: &ReplicaSet| count(s.spec.min_ready_seconds);
    ready(a) != ready(b)
}

fn make(sync: &SyncContext, revision: i64) -> ReplicaSet {
    let deployment = sync.deployment;
    let of = &deployment.spec;
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = template::hash(&of.template, collisions);
    let mut template = of.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.into(), hash.clone());
    let mut selector = of.selector.clone();
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.into(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or(""))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owners::owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: of.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    };
    let size = rollout::new_size(deployment, sync.old.iter(), 0);
    set.spec.replicas = Some(size);
    annotate(deployment, &mut set, revision);
    set_sizes(deployment, &mut set);
    set
}

/// Copies the deployment's annotations and counts the revision up, never down; the numbers it had are its history.
fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) {
    let mut notes = set.metadata.annotations.take().unwrap_or_default();
    let theirs = deployment.metadata.annotations.iter().flatten();
    for (name, value) in theirs.filter(|(name, _)| !NOT_COPIED.contains(&name.as_str())) {
        notes.insert(name.clone(), value.clone());
    }
    let before: Option<i64> = notes.get(REVISION).and_then(|v| v.parse().ok());
    if before.is_none_or(|n| n < revision) {
        let old = notes.insert(REVISION.into(), revision.to_string());
        if let Some(old) = old.filter(|o| !o.is_empty()) {
            remember(&mut notes, old);
        }
    }
    set.metadata.annotations = Some(notes);
}

fn remember(notes: &mut BTreeMap<String, String>, revision: String) {
    let mut all: Vec<String> =
        notes.get(HISTORY).map(|h| h.split(',').map(str::to_owned).collect()).unwrap_or_default();
    all.push(revision);
    while all.len() > 1 && all.iter().map(|n| n.len() + 1).sum::<usize>() > LONGEST_HISTORY {
        all.remove(0);
    }
    notes.insert(HISTORY.into(), all.join(","));
}

/// Notes the sizes that the set was last scaled for; true if they changed.
pub fn set_sizes(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let wanted = replicas(deployment);
    let notes = set.metadata.annotations.get_or_insert_default();
    let desired = notes.insert(DESIRED.into(), wanted.to_string());
    let max = notes.insert(MAX.into(), (wanted + slack(deployment).0).to_string());
    desired.as_ref() != notes.get(DESIRED) || max.as_ref() != notes.get(MAX)
}

/// The deployment with the new revision's number, if it hasn't it yet.
pub fn renumbered(sync: &SyncContext) -> Option<Deployment> {
    let new = sync.new.as_ref()?;
    let number = note(&new.metadata, REVISION)?;
    if note(&sync.deployment.metadata, REVISION) == Some(number) {
        return None;
    }
    let mut next = sync.deployment.clone();
    next.metadata.annotations.get_or_insert_default().insert(REVISION.into(), number.to_owned());
    Some(next)
}

/// Deletes the oldest revisions beyond the limit that have no pods.
pub fn clean_up(sync: &mut SyncContext) {
    let Some(limit) = sync.deployment.spec.revision_history_limit else { return };
    let mut idle: Vec<&ReplicaSet> = sync.old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.sort_by_key(|s| number(&s.metadata));
    let deletable = |s: &&ReplicaSet| {
        let status = s.status.clone().unwrap_or_default();
        let size = s.spec.replicas.unwrap_or(1);
        let observed = status.observed_generation.unwrap_or(0) >= s.metadata.generation.unwrap_or(0);
        status.replicas == 0 && size == 0 && observed
    };
    let doomed: Vec<_> = idle.into_iter().take(surplus).filter(deletable).map(acts::delete).collect();
    sync.plan.extend(doomed);
}

/// Whether the deployment, as its status will be, has arrived; used to decide on cleaning up.
pub fn arrived(sync: &SyncContext) -> bool {
    let current = sync.deployment.status.clone().unwrap_or_default();
    status::is_complete(sync.deployment, &current)
}
