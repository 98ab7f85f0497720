//! What silence does to a node's conditions, and which taints its conditions mean. Pure.

use client::Plan;
use facts::nodes::{READY, condition, status};
use facts::taints::{NO_EXECUTE, NO_SCHEDULE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::zones::{Turn, Zones};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that a kubelet keeps up to date.
const KEPT: &[&str] = &[READY, "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Condition, its status, and the taint that they mean.
const MEANINGS: &[(&str, &str, &str)] = &[
    (READY, "False", NOT_READY),
    (READY, "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

pub fn seconds(at: Timestamp) -> i64 {
    at.as_second()
}

pub fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The node with every condition that its kubelet kept unknown; `None` if they are already.
pub fn silenced(node: &Node, now: Timestamp) -> Option<Node> {
    let mut next = node.clone();
    let now = Some(Time(whole(now)));
    let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for type_ in KEPT {
        match conditions.iter_mut().find(|c| c.type_ == *type_) {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                c.status = "Unknown".into();
                c.reason = Some("NodeStatusUnknown".into());
                c.message = Some("Kubelet stopped posting node status.".into());
                c.last_transition_time = now.clone();
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: (*type_).into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: now.clone(),
                });
                changed = true;
            }
        }
    }
    changed.then_some(next)
}

/// The taints that the node should have: NoSchedule at once, NoExecute when it is its zone's turn. Taints that are
/// not ours stay.
pub fn taints(node: &Node, zones: &mut Zones, now: Timestamp, plan: &mut Plan) -> Vec<Taint> {
    let have = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<&str> = MEANINGS
        .iter()
        .filter(|(type_, status, _)| condition(node, type_).is_some_and(|c| c.status == *status))
        .map(|(_, _, key)| *key)
        .collect();
    // A kubelet that never spoke: as unready as one that says so.
    if condition(node, READY).is_none() {
        wanted.push(NOT_READY);
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push(UNSCHEDULABLE);
    }
    let evicting = evicting(node, &have, zones, now, plan);
    let ours = |t: &Taint| match t.effect.as_str() {
        NO_SCHEDULE => t.key == UNSCHEDULABLE || MEANINGS.iter().any(|(_, _, key)| *key == t.key),
        NO_EXECUTE => t.key == NOT_READY || t.key == UNREACHABLE,
        _ => false,
    };
    let keeps = |t: &Taint| match t.effect.as_str() {
        NO_SCHEDULE => wanted.contains(&t.key.as_str()),
        _ => evicting == Some(t.key.as_str()),
    };
    let mut taints: Vec<Taint> = have.iter().filter(|t| !ours(t) || keeps(t)).cloned().collect();
    let wanted = wanted.iter().map(|key| (*key, NO_SCHEDULE)).chain(evicting.map(|key| (key, NO_EXECUTE)));
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(Time(whole(now))),
                value: None,
            });
        }
    }
    taints
}

/// The NoExecute taint that the node may have now.
fn evicting(node: &Node, have: &[Taint], zones: &mut Zones, now: Timestamp, plan: &mut Plan) -> Option<&'static str> {
    let key = match status(node, READY) {
        "True" => return None,
        "False" => NOT_READY,
        _ => UNREACHABLE,
    };
    // A node that was never heard of has no pods that anyone knows of.
    condition(node, READY)?;
    let has = |key: &str| have.iter().any(|t| t.key == key && t.effect == NO_EXECUTE);
    let turn = zones.turn(node, has(NOT_READY) || has(UNREACHABLE), now);
    match turn {
        Turn::Now => Some(key),
        Turn::Later(wait) => {
            plan.requeue(wait).because("other nodes of its zone are evicted first");
            None
        }
        Turn::Never => {
            plan.because("all nodes of its zone are ill: more likely the network is");
            None
        }
    }
}
