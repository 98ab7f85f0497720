//! Actions for plans, made from typed objects: one line each, so that decisions read as what they decide.

use client::{Action, EventType, PatchBody, Target, Words};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::api::PropagationPolicy;
use serde::Serialize;
use serde_json::{Value, json};

/// A built-in type that can be written.
pub trait Written: Resource<DynamicType = ()> + Serialize {}
impl<K: Resource<DynamicType = ()> + Serialize> Written for K {}

fn json_of<K: Written>(object: &K) -> Value {
    serde_json::to_value(object).expect("API types serialize to JSON")
}

pub fn create<K: Written>(object: &K) -> Action {
    Action::Create { target: Target::of(object), object: json_of(object) }
}

/// Replaces the object; its resource version guards against lost updates.
pub fn update<K: Written>(object: &K) -> Action {
    Action::Update { target: Target::of(object), subresource: None, object: json_of(object) }
}

pub fn update_status<K: Written>(object: &K) -> Action {
    Action::Update { target: Target::of(object), subresource: Some("status"), object: json_of(object) }
}

/// Deletes this very object (by uid), as the default of its kind propagates.
pub fn delete<K: Written>(object: &K) -> Action {
    Action::Delete {
        target: Target::of(object),
        uid: object.meta().uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: None,
    }
}

pub fn delete_with<K: Written>(object: &K, propagation: PropagationPolicy) -> Action {
    let mut action = delete(object);
    if let Action::Delete { propagation: p, .. } = &mut action {
        *p = Some(propagation);
    }
    action
}

/// Deletes at once, without grace.
pub fn delete_now<K: Written>(object: &K) -> Action {
    let mut action = delete(object);
    if let Action::Delete { grace_seconds, .. } = &mut action {
        *grace_seconds = Some(0);
    }
    action
}

/// A strategic merge patch of this very object (its uid is put into the body).
pub fn patch<K: Written>(object: &K, mut body: Value) -> Action {
    body["metadata"]["uid"] = json!(object.meta().uid);
    Action::Patch { target: Target::of(object), subresource: None, patch: PatchBody::Strategic(body) }
}

pub fn patch_status<K: Written>(object: &K, mut body: Value) -> Action {
    body["metadata"]["uid"] = json!(object.meta().uid);
    Action::Patch { target: Target::of(object), subresource: Some("status"), patch: PatchBody::Strategic(body) }
}

/// What events and target references say of an object.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

pub fn event<K: Resource<DynamicType = ()>>(about: &K, kind: EventType, reason: &str, note: String) -> Action {
    Action::Event { regarding: Box::new(reference(about)), kind, reason: reason.into(), note }
}

pub fn normal<K: Resource<DynamicType = ()>>(about: &K, reason: &str, note: String) -> Action {
    event(about, EventType::Normal, reason, note)
}

pub fn warning<K: Resource<DynamicType = ()>>(about: &K, reason: &str, note: String) -> Action {
    event(about, EventType::Warning, reason, note)
}

/// The action, with an event about `regarding` that says how it went.
pub fn told(action: Action, regarding: &ObjectReference, done: Words, failed: Words) -> Action {
    Action::Told { action: Box::new(action), regarding: Box::new(regarding.clone()), done, failed }
}

/// Creates a pod and tells its owner so.
pub fn create_pod<K: Written>(pod: &K, owner: &ObjectReference) -> Action {
    let done = Words { reason: "SuccessfulCreate", note: "Created pod: " };
    told(create(pod), owner, done, Words { reason: "FailedCreate", note: "Error creating: " })
}

/// Deletes a pod and tells its owner so.
pub fn delete_pod<K: Written>(pod: &K, owner: &ObjectReference) -> Action {
    let done = Words { reason: "SuccessfulDelete", note: "Deleted pod: " };
    told(delete(pod), owner, done, Words { reason: "FailedDelete", note: "Error deleting: " })
}

/// Batches of 1, 2, 4, ... so that a refusal that will meet all of them (a quota, say) is met once, not by all.
pub fn slow_start(actions: Vec<Action>) -> Vec<Action> {
    let (mut batches, mut size, mut rest) = (Vec::new(), 1, actions.into_iter().peekable());
    while rest.peek().is_some() {
        batches.push(Action::Together(rest.by_ref().take(size).collect()));
        size *= 2;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_doubles_each_batch() {
        let actions = vec![Action::Together(Vec::new()); 9];
        let sizes: Vec<usize> =
            slow_start(actions).iter().map(|b| if let Action::Together(all) = b { all.len() } else { 0 }).collect();
        assert_eq!(sizes, [1, 2, 4, 2]);
    }
}
