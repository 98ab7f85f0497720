//! What to do about one object: nothing, drop owners that are gone, delete it as its finalizers say, take its
//! foreground finalizer off, or set its dependents free. Pure: owners that no watch shows are asked for.

use std::time::Duration;

use client::plan::{Deletion, Op};
use client::{Action, EventType, PatchBody, Plan, Target};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;
use serde_json::{Value, json};

use super::graph::{self, FOREGROUND, Graph, Item, ORPHAN, Wake};

/// An owner that the server has and no watch shows (its kind can't be watched, or it came and went between two lists)
/// is asked for again after this long: nobody will tell when it goes.
const UNSEEN: Duration = Duration::from_secs(60);

/// What is known of an owner. While that is nothing, nothing is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Present,
    /// There, but going as soon as its dependents are gone.
    Waiting,
    Absent,
}

/// What the server said of the references of one object so far.
pub type Asked = Vec<(OwnerReference, Owner)>;

#[derive(Debug, PartialEq)]
pub enum Next {
    Do(Plan),
    /// Nothing can be decided before this is known; `namespace` is the dependent's.
    Ask {
        owner: OwnerReference,
        namespace: String,
    },
}

/// `is_namespaced`: whether a reference's kind lives in namespaces, if known.
pub fn next(
    graph: &Graph,
    wake: &Wake,
    asked: &Asked,
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
    asked: &Asked,
    is_namespaced: impl Fn(&OwnerReference) -> Option<bool>,
) -> Next {
    let mut plan = Plan::default();
    let (mut solid, mut loose, mut waiting) = (Vec::new(), Vec::new(), false);
    for owner in &item.owners {
        // A namespaced owner of a cluster-wide object is no valid owner: it is told, and nothing is done to the object.
        if item.namespace.is_empty() && is_namespaced(owner) == Some(true) {
            return Next::Do(Plan::of([elsewhere(uid, item, owner)]));
        }
        let known = state(graph, item, owner);
        let answer = || asked.iter().find(|(o, _)| o == owner).map(|(_, answer)| *answer);
        match known.or_else(answer) {
            None => return Next::Ask { owner: owner.clone(), namespace: item.namespace.clone() },
            Some(Owner::Present) => {
                if graph.item(&owner.uid).is_none() {
                    plan.requeue(UNSEEN);
                }
                solid.push(owner.clone());
            }
            Some(Owner::Absent) => {
                let real = graph.item(&owner.uid);
                if real.is_some_and(|o| !o.namespace.is_empty() && o.namespace != item.namespace) {
                    plan.push(elsewhere(uid, item, owner));
                }
                loose.push(owner.clone());
            }
            Some(Owner::Waiting) => {
                waiting = true;
                loose.push(owner.clone());
            }
        }
    }
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
    if graph.is_gone(owner, &item.namespace) {
        return Some(Owner::Absent);
    }
    let found = graph.item(&owner.uid).filter(|found| graph::owns(owner, found, &item.namespace))?;
    Some(if found.waits_for_dependents() { Owner::Waiting } else { Owner::Present })
}

/// Upstream's words for an owner that lives in another namespace than who refers to it.
fn elsewhere(uid: &str, item: &Item, owner: &OwnerReference) -> Action {
    let (OwnerReference { api_version, kind, name, uid: owned_by, .. }, here) = (owner, &item.namespace);
    let note = format!(
        "ownerRef [{api_version}/{kind}, namespace: {here}, name: {name}, uid: {owned_by}] does not exist in namespace \"{here}\""
    );
    let about = ObjectReference {
        api_version: Some(item.resource.api_version.clone()),
        kind: Some(item.resource.kind.clone()),
        namespace: Some(here.clone()).filter(|n| !n.is_empty()),
        name: Some(item.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    let (regarding, reason) = (Box::new(about), "OwnerRefInvalidNamespace".to_owned());
    Action::Event { regarding, kind: EventType::Warning, reason, note }
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
    // Whose reference leads nowhere, for it lives elsewhere, holds nobody up.
    let here = |d: &Item| item.namespace.is_empty() || item.namespace == d.namespace;
    let blocks = |d: &Item| here(d) && d.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true));
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
    plan.together(freed.collect());
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
    Op::patch(target(item), None, PatchBody::Merge(json!({"metadata": metadata}))).into()
}

fn delete(uid: &str, item: &Item, policy: PropagationPolicy, this_version: bool) -> Action {
    let deletion = Deletion {
        uid: Some(uid.to_owned()),
        // The owners may have been changed meanwhile: then it is decided again.
        resource_version: this_version.then(|| item.version.clone()),
        propagation: Some(policy),
        grace_seconds: None,
    };
    Op::delete(target(item), deletion).into()
}
