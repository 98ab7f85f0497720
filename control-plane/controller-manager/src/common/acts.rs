//! Actions for plans, made from typed objects: one line each, so that decisions read as what they decide. Pure.

use client::plan::{Deletion, Op};
use client::{Action, EventType, PatchBody, Step, Target, Words};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use serde::Serialize;
use serde_json::{Value, json};

/// A built-in type that can be written.
pub trait Written: Resource<DynamicType = ()> + Serialize {}
impl<K: Resource<DynamicType = ()> + Serialize> Written for K {}

fn json_of<K: Written>(object: &K) -> Value {
    serde_json::to_value(object).expect("API types serialize to JSON")
}

/// Creates the object.
pub fn create<K: Written>(object: &K) -> Action {
    created(object).into()
}

fn created<K: Written>(object: &K) -> Op {
    Op::create(Target::of(object), json_of(object))
}

/// Replaces the object; its resource version guards against lost updates.
pub fn update<K: Written>(object: &K) -> Action {
    Op::update(Target::of(object), None, json_of(object)).into()
}

pub fn update_status<K: Written>(object: &K) -> Action {
    Op::update(Target::of(object), Some("status"), json_of(object)).into()
}

/// Deletes this very object (by uid), as the default of its kind propagates.
pub fn delete<K: Written>(object: &K) -> Action {
    delete_as(object, Deletion::default())
}

/// Deletes this very object (by uid), otherwise as `how` says.
pub fn delete_as<K: Written>(object: &K, how: Deletion) -> Action {
    deleted(object, how).into()
}

fn deleted<K: Written>(object: &K, how: Deletion) -> Op {
    Op::delete(Target::of(object), Deletion { uid: object.meta().uid.clone(), ..how })
}

/// Deletes at once, without grace.
pub fn delete_now<K: Written>(object: &K) -> Action {
    delete_as(object, Deletion { grace_seconds: Some(0), ..Deletion::default() })
}

/// A strategic merge patch of this very object (its uid is put into the body).
pub fn patch<K: Written>(object: &K, mut body: Value) -> Action {
    body["metadata"]["uid"] = json!(object.meta().uid);
    Op::patch(Target::of(object), None, PatchBody::Strategic(body)).into()
}

pub fn patch_status<K: Written>(object: &K, mut body: Value) -> Action {
    body["metadata"]["uid"] = json!(object.meta().uid);
    Op::patch(Target::of(object), Some("status"), PatchBody::Strategic(body)).into()
}

pub fn event<K: Resource<DynamicType = ()>>(about: &K, kind: EventType, reason: &str, note: String) -> Action {
    Action::Event { regarding: Box::new(client::reference(about)), kind, reason: reason.into(), note }
}

pub fn normal<K: Resource<DynamicType = ()>>(about: &K, reason: &str, note: String) -> Action {
    event(about, EventType::Normal, reason, note)
}

pub fn warning<K: Resource<DynamicType = ()>>(about: &K, reason: &str, note: String) -> Action {
    event(about, EventType::Warning, reason, note)
}

fn recorded(op: Op, regarding: &ObjectReference, done: Words, failed: Words) -> Action {
    Action::Recorded { op, regarding: Box::new(regarding.clone()), done, failed }
}

/// Creates a pod and tells its owner so.
pub fn create_pod<K: Written>(pod: &K, owner: &ObjectReference) -> Action {
    let done = Words { reason: "SuccessfulCreate", note: "Created pod: " };
    recorded(created(pod), owner, done, Words { reason: "FailedCreate", note: "Error creating: " })
}

/// Deletes a pod and tells its owner so.
pub fn delete_pod<K: Written>(pod: &K, owner: &ObjectReference) -> Action {
    let done = Words { reason: "SuccessfulDelete", note: "Deleted pod: " };
    recorded(deleted(pod, Deletion::default()), owner, done, Words { reason: "FailedDelete", note: "Error deleting: " })
}

/// Batches of 1, 2, 4, ... so that a refusal that will meet all of them (a quota, say) is met once, not by all.
pub fn slow_start(actions: Vec<Action>) -> Vec<Step> {
    let (mut batches, mut size, mut rest) = (Vec::new(), 1, actions.into_iter().peekable());
    while rest.peek().is_some() {
        batches.push(Step::Together(rest.by_ref().take(size).collect()));
        size *= 2;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_doubles_each_batch() {
        let pod = k8s_openapi::api::core::v1::Pod::default();
        let sizes: Vec<usize> = slow_start(vec![create(&pod); 9]).iter().map(|batch| batch.actions().len()).collect();
        assert_eq!(sizes, [1, 2, 4, 2]);
    }
}
