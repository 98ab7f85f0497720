//! What to do about one object: nothing, drop owners that are gone, delete it as its finalizers say, take its
//! foreground finalizer off, or set its dependents free. Pure: owners that no watch shows are asked for.

use std::collections::HashMap;

use client::{Action, PatchBody, Plan, Target};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;
use serde_json::{Value, json};

use super::graph::{self, FOREGROUND, Graph, Item, ORPHAN, Wake};

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Present,
    /// There, but going as soon as its dependents are gone.
    Waiting,
    Absent,
    /// Its kind can't be looked up.
    Unknown,
}

#[derive(Debug, PartialEq)]
pub enum Next {
    Do(Plan),
    /// Nothing can be decided before this is known; `namespace` is the dependent's.
    Ask {
        owner: OwnerReference,
        namespace: String,
    },
}

/// `asked`: answers so far, by uid. `is_namespaced`: whether a reference's kind lives in namespaces, if known.
pub fn next(
    graph: &Graph,
    wake: &Wake,
    asked: &HashMap<String, Owner>,
    is_namespaced: impl Fn(&OwnerReference) -> Option<bool>,
) -> Next {
    match wake {
        Wake::Orphans(uid) => Next::Do(orphan(graph, uid)),
        Wake::Item(uid) => match graph.item(uid) {
            None => Next::Do(Plan::default()),
            Some(item) if item.waits_for_dependents() => Next::Do(wait(graph, uid, item)),
            Some(item) if item.deleting || item.owners.is_empty() => Next::Do(Plan::default()),
            Some(item) => owned(graph, uid, item, asked, is_namespaced),
        },
    }
}

fn owned(
    graph: &Graph,
    uid: &str,
    item: &Item,
    asked: &HashMap<String, Owner>,
    is_namespaced: impl Fn(&OwnerReference) -> Option<bool>,
) -> Next {
    let (mut solid, mut loose, mut waiting) = (Vec::new(), Vec::new(), false);
    for owner in &item.owners {
        // A namespaced owner of a cluster-wide object is no valid owner; nothing is deleted for it.
        if item.namespace.is_empty() && is_namespaced(owner) == Some(true) {
            solid.push(owner.clone());
            continue;
        }
        match state(graph, item, owner).or_else(|| asked.get(&owner.uid).copied()) {
            None => return Next::Ask { owner: owner.clone(), namespace: item.namespace.clone() },
            Some(Owner::Present) => solid.push(owner.clone()),
            Some(Owner::Absent) => loose.push(owner.clone()),
            Some(Owner::Waiting) => {
                waiting = true;
                loose.push(owner.clone());
            }
            Some(Owner::Unknown) => return Next::Do(Plan::default()),
        }
    }
    let mut plan = Plan::default();
    if !solid.is_empty() {
        if !loose.is_empty() {
            plan.push(patch(uid, item, json!({"ownerReferences": solid})));
        }
    } else if waiting && graph.dependents(uid).next().is_some() {
        // Owners wait for this one, and it has dependents itself: a chain, or even a circle.
        if graph.dependents(uid).any(|(_, d)| d.waits_for_dependents()) {
            let freed: Vec<OwnerReference> =
                item.owners.iter().map(|o| OwnerReference { block_owner_deletion: Some(false), ..o.clone() }).collect();
            plan.push(patch(uid, item, json!({"ownerReferences": freed})));
            // The delete below is for the version that this patch makes.
            plan.push(delete(uid, item, PropagationPolicy::Foreground, false));
            return Next::Do(plan);
        }
        plan.push(delete(uid, item, PropagationPolicy::Foreground, true));
    } else {
        plan.push(delete(uid, item, policy(item), true));
    }
    Next::Do(plan)
}

/// As the graph knows; `None` when it has not seen such an owner.
fn state(graph: &Graph, item: &Item, owner: &OwnerReference) -> Option<Owner> {
    let Some(found) = graph.item(&owner.uid) else {
        return graph.is_gone(&owner.uid).then_some(Owner::Absent);
    };
    let here = found.namespace.is_empty() || found.namespace == item.namespace;
    if !here || !graph::names(owner, found) {
        return None;
    }
    Some(if found.waits_for_dependents() { Owner::Waiting } else { Owner::Present })
}

/// The finalizers say how whoever deletes this wants its dependents treated.
fn policy(item: &Item) -> PropagationPolicy {
    if graph::has(Some(&item.finalizers), ORPHAN) {
        PropagationPolicy::Orphan
    } else if graph::has(Some(&item.finalizers), FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    }
}

/// Going once no dependent blocks it any more. Its dependents were woken when it began to wait.
fn wait(graph: &Graph, uid: &str, item: &Item) -> Plan {
    let mut plan = Plan::default();
    let blocks = |d: &Item| d.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true));
    if !graph.dependents(uid).any(|(_, d)| blocks(d)) {
        plan.push(without_finalizer(uid, item, FOREGROUND));
    }
    plan
}

/// Every dependent loses this owner, then the owner may go.
fn orphan(graph: &Graph, uid: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(item) = graph.item(uid).filter(|i| i.orphans_dependents()) else { return plan };
    let freed = graph.dependents(uid).map(|(dependent, d)| {
        let rest: Vec<&OwnerReference> = d.owners.iter().filter(|o| o.uid != uid).collect();
        patch(dependent, d, json!({"ownerReferences": rest}))
    });
    plan.push(Action::Together(freed.collect()));
    plan.push(without_finalizer(uid, item, ORPHAN));
    plan
}

fn without_finalizer(uid: &str, item: &Item, name: &str) -> Action {
    let rest: Vec<&String> = item.finalizers.iter().filter(|f| *f != name).collect();
    patch(uid, item, json!({"finalizers": rest}))
}

fn target(item: &Item) -> Target {
    Target { resource: (*item.resource).clone(), namespace: item.namespace.clone(), name: item.name.clone() }
}

/// A merge patch of metadata: custom resources know no other. The version guards the whole lists in it.
fn patch(uid: &str, item: &Item, mut metadata: Value) -> Action {
    metadata["uid"] = json!(uid);
    metadata["resourceVersion"] = json!(item.version);
    Action::Patch { target: target(item), subresource: None, patch: PatchBody::Merge(json!({"metadata": metadata})) }
}

fn delete(uid: &str, item: &Item, policy: PropagationPolicy, this_version: bool) -> Action {
    Action::Delete {
        target: target(item),
        uid: Some(uid.to_owned()),
        // The owners may have been changed meanwhile: then it is decided again.
        resource_version: this_version.then(|| item.version.clone()),
        propagation: Some(policy),
        grace_seconds: None,
    }
}
