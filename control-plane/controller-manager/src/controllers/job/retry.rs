//! Waiting after failures: ten seconds, doubled with each failure since the last success, ten minutes at most.
//! It is all read from the pods that ended, so a restart of the controller forgets nothing. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{SyncContext, indexes, is_tracked, policy};
use crate::common::pods;

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(600);

/// On pods of jobs with a limit per index: failures of that index so far.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// When the pod ended.
fn ended(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let finished = status.container_statuses.iter().flatten();
    let last = finished.filter_map(|c| Some(c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)).max();
    let unready = || pods::condition(pod, "Ready").and_then(|c| c.last_transition_time.as_ref().map(|t| t.0));
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    last.or_else(unready).or_else(deleted).or_else(|| pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

/// How long no replacement is made.
pub fn left(sync: &SyncContext) -> Duration {
    let last_success = sync.pods.iter().filter(|p| pods::phase(p) == "Succeeded").filter_map(|p| ended(p)).max();
    let failures: Vec<Timestamp> = sync
        .pods
        .iter()
        .filter(|p| sync.has_failed(p))
        .filter_map(|p| ended(p))
        .filter(|at| last_success.is_none_or(|s| *at > s))
        .collect();
    let Some(last) = failures.iter().max() else { return Duration::ZERO };
    wait(failures.len() as u32, *last, sync.now)
}

fn wait(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MOST);
    let since = Duration::from_millis((now.as_millisecond() - last.as_millisecond()).max(0) as u64);
    whole.saturating_sub(since)
}

fn note(pod: &Pod, name: &str) -> i32 {
    pod.metadata.annotations.as_ref().and_then(|a| a.get(name)).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Failures of the pod's index before it.
pub fn failures_of(pod: &Pod) -> i32 {
    note(pod, FAILURES)
}

/// The failed pod of each index that has the most failures behind it.
fn latest<'a>(sync: &'a SyncContext) -> HashMap<i32, &'a Pod> {
    let mut latest: HashMap<i32, &'a Pod> = HashMap::new();
    let total = |p: &Pod| note(p, FAILURES) + note(p, IGNORED);
    for pod in sync.pods.iter().filter(|p| sync.has_failed(p)) {
        let Some(index) = indexes::valid(sync, pod) else { continue };
        let known = latest.entry(index).or_insert(pod);
        if total(pod) > total(known) {
            *known = pod;
        }
    }
    latest
}

/// Failures (counted, ignored) that a new pod of the index carries on, and how long it waits.
pub fn of_index(sync: &SyncContext, index: i32) -> (i32, i32, Duration) {
    let Some(pod) = latest(sync).get(&index).copied() else { return (0, 0, Duration::ZERO) };
    let counts = policy::verdict(sync, pod).counts;
    let (failures, ignored) = (note(pod, FAILURES) + i32::from(counts), note(pod, IGNORED) + i32::from(!counts));
    let left = ended(pod).map_or(Duration::ZERO, |at| wait((failures + ignored) as u32, at, sync.now));
    (failures, ignored, left)
}

/// Failed pods (by uid) that must stay until a replacement carries their count on.
pub fn kept_for_their_count(sync: &SyncContext) -> HashSet<String> {
    if sync.spec.backoff_limit_per_index.is_none() {
        return HashSet::new();
    }
    let newest = |index: i32, total: i32| {
        sync.pods.iter().any(|p| indexes::valid(sync, p) == Some(index) && note(p, FAILURES) + note(p, IGNORED) > total)
    };
    let waits = |(index, pod): (i32, &Pod)| {
        let done = sync.failed.contains(index) || sync.succeeded.contains(index);
        let replaced = newest(index, note(pod, FAILURES) + note(pod, IGNORED));
        (is_tracked(pod) && !done && !replaced).then(|| pod.metadata.uid.clone().unwrap_or_default())
    };
    latest(sync).into_iter().filter_map(waits).collect()
}
