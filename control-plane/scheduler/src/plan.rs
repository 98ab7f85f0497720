//! Decisions as API calls: the binding, the condition that says why not, the victims' end, and the events that people
//! read. Pure; the daemon executes.

use client::{Action, Deletion, EventType, Op, PatchBody, Plan, Target};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use serde_json::json;

use crate::pod::PodInfo;
use crate::preemption::Nomination;

/// A reference to a pod, as events carry it.
pub fn reference(pod: &PodInfo) -> Box<ObjectReference> {
    Box::new(ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        resource_version: pod.resource_version.clone(),
        field_path: None,
    })
}

/// Binds the pod to the node and tells.
pub fn bind(pod: &PodInfo, node: &str) -> Plan {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let note = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
    Plan::of([
        Action::Do(Op::post(target(pod), "binding", binding)),
        Action::Event { regarding: reference(pod), kind: EventType::Normal, reason: "Scheduled".into(), note },
    ])
}

/// Tells that the pod found no node, and who is nominated to make room. Says nothing twice.
pub fn unschedulable(pod: &PodInfo, reason: &str, message: &str, nominated: Option<&Nomination>, now: &str) -> Plan {
    let mut plan = Plan::default();
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastTransitionTime": now,
    });
    let mut status = json!({"conditions": [condition]});
    if let Some(nomination) = nominated {
        status["nominatedNodeName"] = json!(nomination.node);
        nomination.victims.iter().for_each(|victim| evict(&mut plan, victim, pod, nomination, now));
    }
    let known = pod.refused.as_deref() == Some(message);
    if !known || nominated.is_some() {
        let patch = PatchBody::Strategic(json!({"metadata": {"uid": pod.uid}, "status": status}));
        plan.push(Op::patch(target(pod), Some("status"), patch));
    }
    plan.push(Action::Event {
        regarding: reference(pod),
        kind: EventType::Warning,
        reason: "FailedScheduling".into(),
        note: message.into(),
    });
    plan
}

fn evict(plan: &mut Plan, victim: &PodInfo, pod: &PodInfo, nomination: &Nomination, now: &str) {
    let scheduler = pod.scheduler.as_deref().unwrap_or("default-scheduler");
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "lastTransitionTime": now,
    });
    let patch = PatchBody::Strategic(json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}));
    plan.push(Op::patch(target(victim), Some("status"), patch));
    let this_one = Deletion { uid: Some(victim.uid.clone()), ..Deletion::default() };
    plan.push(Op::delete(target(victim), this_one));
    plan.push(Action::Event {
        regarding: reference(victim),
        kind: EventType::Normal,
        reason: "Preempted".into(),
        note: format!("Preempted by pod {} on node {}", pod.uid, nomination.node),
    });
}

fn target(pod: &PodInfo) -> Target {
    Target::named::<Pod>(&pod.namespace, &pod.name)
}
