//! What workload controllers decide on beside the facts of single pods: when the next becomes available, which goes first.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

pub use facts::pods::{
    available_in, condition, is_active, is_available, is_ready, is_terminal, is_terminating, phase, ready_since,
};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// When the next of these pods becomes available by time alone.
pub fn next_available<'a>(pods: impl IntoIterator<Item = &'a Pod>, min_ready: i32, now: Timestamp) -> Option<Duration> {
    if min_ready <= 0 {
        return None;
    }
    pods.into_iter().filter_map(|p| available_in(p, min_ready, now)).filter(|d| !d.is_zero()).min()
}

pub fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    containers.map(|c| c.restart_count).max().unwrap_or(0)
}

fn cost(pod: &Pod) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST));
    annotation.and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

/// Which of two pods goes first when there are too many: upstream's order. `rank` counts the related pods on the
/// pod's node: doubled-up ones go first.
pub fn deletion_order(a: (&Pod, usize), b: (&Pod, usize), now: Timestamp) -> Ordering {
    let ((a, rank_a), (b, rank_b)) = (a, b);
    let assigned = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| age_bucket(ready_since(a), now).cmp(&age_bucket(ready_since(b), now)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| age_bucket(created(a), now).cmp(&age_bucket(created(b), now)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

/// Ages compare by their magnitude (powers of two seconds), so that among pods of about one age the choice is spread.
fn age_bucket(since: Option<Timestamp>, now: Timestamp) -> i64 {
    let Some(since) = since else { return -1 };
    let seconds = (now.as_second() - since.as_second()).max(0);
    if seconds == 0 { 0 } else { i64::from(seconds.ilog2()) + 1 }
}
