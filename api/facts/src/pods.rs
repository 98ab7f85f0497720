//! Where a pod is in its life: phase, conditions, readiness. Read from the status alone, as its kubelet reported it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// The condition that makes a pod an endpoint of its Services.
pub const READY: &str = "Ready";

/// `status.phase`; a pod that has none is `Pending`.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Ended, well or not: it runs no more and holds nothing of its node.
pub fn is_terminal(pod: &Pod) -> bool {
    is_terminal_phase(phase(pod))
}

/// [`is_terminal`] for a phase alone: `Succeeded` or `Failed`.
pub fn is_terminal_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Being deleted; its containers may still run.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither ended nor being deleted: upstream's `IsPodActive`.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// The condition of a type, as it was last reported.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Whether `Ready` is `True`; a pod that says nothing isn't.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, READY).is_some_and(|c| c.status == "True")
}

/// Since when the pod is ready; `None` when it is not.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, READY).filter(|c| c.status == "True")?.last_transition_time.as_ref().map(|t| t.0)
}

/// Ready for at least `min_ready` seconds.
pub fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> bool {
    is_ready(pod) && (min_ready <= 0 || available_in(pod, min_ready, now) == Some(Duration::ZERO))
}

/// How long until a ready pod is available; zero when it is, `None` when it is not ready.
pub fn available_in(pod: &Pod, min_ready: i32, now: Timestamp) -> Option<Duration> {
    let at = ready_since(pod)?.as_millisecond() + i64::from(min_ready) * 1000;
    Some(Duration::from_millis((at - now.as_millisecond()).max(0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    #[test]
    fn a_pod_is_active_until_it_ends_or_is_deleted() {
        for (phase, active) in
            [("Pending", true), ("Running", true), ("Unknown", true), ("Succeeded", false), ("Failed", false)]
        {
            assert_eq!(is_active(&pod(json!({"phase": phase}))), active, "{phase}");
        }
        assert!(is_active(&Pod::default()), "a pod without a status waits");
        let mut deleted = pod(json!({"phase": "Running"}));
        deleted.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        assert!(!is_active(&deleted) && is_terminating(&deleted) && !is_terminal(&deleted));
    }

    /// Upstream's cases of IsPodAvailable: (status of Ready, seconds since, minReadySeconds).
    #[test]
    fn a_pod_is_available_when_it_has_been_ready_long_enough() {
        let now = Timestamp::from_second(1_000).unwrap();
        for (status, since, min_ready, available) in [
            (None, 0, 0, false),
            (Some("False"), 60, 0, false),
            (Some("Unknown"), 60, 0, false),
            (Some("True"), 0, 0, true),
            (Some("True"), 0, 1, false),
            (Some("True"), 10, 11, false),
            (Some("True"), 10, 10, true),
            (Some("True"), 60, 30, true),
        ] {
            let at = Timestamp::from_second(1_000 - since).unwrap().to_string();
            let conditions: Vec<Value> = status
                .iter()
                .map(|status| json!({"type": "Ready", "status": status, "lastTransitionTime": at}))
                .collect();
            let pod = pod(json!({"conditions": conditions}));
            assert_eq!(is_available(&pod, min_ready, now), available, "{status:?} for {since} of {min_ready}");
            assert_eq!(is_ready(&pod), status == Some("True"));
        }
    }
}
