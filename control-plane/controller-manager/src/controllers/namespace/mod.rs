//! namespace-controller: empties a namespace that is being deleted (its pods first, then everything that discovery
//! knows), says in conditions what remains, and lets it go when nothing does. What remains is asked from the server
//! by [`content`]; what to do about it is decided here.

pub mod content;
#[cfg(test)]
mod tests;

use std::time::Duration;

use client::plan::Op;
use client::{Action, Delta, Key, Plan, Target, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::common::acts;
use crate::runner::Work;
use crate::setup::Setup;
use content::Found;

const FINALIZER: &str = "kubernetes";

/// How soon to look again for content that only its finalizers hold; each look lists the whole namespace.
const FINALIZERS_AGAIN: Duration = Duration::from_secs(8);
/// How soon to look again when the last look failed or left something that should be gone at once.
const SOON: Duration = Duration::from_secs(1);

pub fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        || namespace.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Terminating")
}

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let again = queue.clone();
    let namespaces = setup.on(move |delta: &Delta<Namespace>| {
        if delta.object().metadata.deletion_timestamp.is_some() && !matches!(delta, Delta::Deleted(_)) {
            again.add(Key::of(delta.object().as_ref()));
        }
    });
    // The last pod gone is what a namespace mostly waits for. At each one before it there is nothing to see, and a look
    // lists the whole namespace.
    let (again, known, pods) = (queue.clone(), namespaces.clone(), setup.watch::<Pod>());
    setup.on(move |delta: &Delta<Pod>| {
        let key = Key::new("", delta.object().metadata.namespace.clone().unwrap_or_default());
        if matches!(delta, Delta::Deleted(_))
            && !pods.has_in(&key.name)
            && known.get(&key).is_some_and(|n| n.metadata.deletion_timestamp.is_some())
        {
            again.add(key);
        }
    });
    let executor = setup.executor("namespace-controller");
    let (client, workers) = (setup.client(), setup.config.concurrency.namespace);
    setup.run(Work::asking(&queue, executor, workers, move |key, now| {
        let (namespace, client) = (namespaces.get(&key), client.clone());
        async move {
            let Some(namespace) = namespace else { return Plan::default() };
            if let Some(first) = begin(&namespace) {
                return first;
            }
            reconcile(&namespace, &content::clear(&client, &key.name, now).await, now)
        }
    }));
}

/// What comes before content is touched; `None` when it is content's turn.
fn begin(namespace: &Namespace) -> Option<Plan> {
    let mut plan = Plan::default();
    let waiting = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty());
    if namespace.metadata.deletion_timestamp.is_none() || !waiting {
        return Some(plan);
    }
    if namespace.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating") {
        let mut namespace = namespace.clone();
        namespace.status.get_or_insert_default().phase = Some("Terminating".into());
        plan.push(acts::update_status(&namespace));
        return Some(plan);
    }
    None
}

/// Conditions, and the finalizer off when nothing is left.
fn reconcile(namespace: &Namespace, found: &Found, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut next = namespace.clone();
    let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
    for wanted in conditions_of(found) {
        set(conditions, wanted, now);
    }
    if next != *namespace {
        plan.push(acts::update_status(&next));
    }
    if found.is_clear() {
        plan.push(finalize(namespace));
    } else {
        let finalizers_only = found.failures.is_empty() && found.remaining.iter().all(|r| !r.finalizers.is_empty());
        let grace = found.remaining.iter().filter_map(|r| r.grace).max().map(|g| g / 2 + SOON);
        plan.requeue(grace.unwrap_or(if finalizers_only { FINALIZERS_AGAIN } else { SOON }));
    }
    plan
}

fn finalize(namespace: &Namespace) -> Action {
    let mut next = namespace.clone();
    // The status was written just before; the server guards this step by uid alone.
    next.metadata.resource_version = None;
    let finalizers = next.spec.get_or_insert_default().finalizers.get_or_insert_default();
    finalizers.retain(|f| f != FINALIZER);
    let object = serde_json::to_value(&next).expect("API types serialize to JSON");
    Op::update(Target::of(namespace), Some("finalize"), object).into()
}

struct Wanted {
    type_: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

fn conditions_of(found: &Found) -> Vec<Wanted> {
    let wanted = |type_, status, reason, message: String| Wanted { type_, status, reason, message };
    let mut all = Vec::new();
    all.push(match found.undiscovered.as_slice() {
        [] => wanted(
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".into(),
        ),
        failed => wanted(
            "NamespaceDeletionDiscoveryFailure",
            true,
            "DiscoveryFailed",
            format!("Discovery failed for some groups, {} failing: {}", failed.len(), failed.join(", ")),
        ),
    });
    all.push(wanted(
        "NamespaceDeletionGroupVersionParsingFailure",
        false,
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed".into(),
    ));
    all.push(match found.failures.as_slice() {
        [] => wanted(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".into(),
        ),
        failed => wanted(
            "NamespaceDeletionContentFailure",
            true,
            "ContentDeletionFailed",
            format!("Failed to delete all resource types, {} remaining: {}", failed.len(), failed.join(", ")),
        ),
    });
    all.push(remaining_condition(found));
    all.push(finalizers_condition(found));
    all
}

fn remaining_condition(found: &Found) -> Wanted {
    let mut lines: Vec<String> = found
        .remaining
        .iter()
        .map(|r| format!("{}.{} has {} resource instances", r.plural, r.group, r.count))
        .collect();
    lines.sort();
    let type_ = "NamespaceContentRemaining";
    if lines.is_empty() {
        let message = "All content successfully removed".into();
        return Wanted { type_, status: false, reason: "ContentRemoved", message };
    }
    let message = format!("Some resources are remaining: {}", lines.join(", "));
    Wanted { type_, status: true, reason: "SomeResourcesRemain", message }
}

fn finalizers_condition(found: &Found) -> Wanted {
    let mut counts = std::collections::BTreeMap::new();
    for (finalizer, n) in found.remaining.iter().flat_map(|r| &r.finalizers) {
        *counts.entry(finalizer).or_insert(0usize) += n;
    }
    let type_ = "NamespaceFinalizersRemaining";
    if counts.is_empty() {
        let message = "All content-preserving finalizers finished".into();
        return Wanted { type_, status: false, reason: "ContentHasNoFinalizers", message };
    }
    let lines: Vec<String> = counts.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let message = format!("Some content in the namespace has finalizers remaining: {}", lines.join(", "));
    Wanted { type_, status: true, reason: "SomeFinalizersRemain", message }
}

fn set(conditions: &mut Vec<NamespaceCondition>, wanted: Wanted, now: Timestamp) {
    let status = if wanted.status { "True" } else { "False" };
    let now = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(known) => {
            if known.status != status {
                known.last_transition_time = now;
            }
            known.status = status.into();
            known.reason = Some(wanted.reason.into());
            known.message = Some(wanted.message);
        }
        None => conditions.push(NamespaceCondition {
            type_: wanted.type_.into(),
            status: status.into(),
            reason: Some(wanted.reason.into()),
            message: Some(wanted.message),
            last_transition_time: now,
        }),
    }
}
