//! Counting ended pods exactly once: first the status names them (`uncountedTerminatedPods`), then they lose their
//! finalizer, then they are added to the counters. Succeeded indexes need no names: an index counts once. Pure.

use std::collections::HashSet;

use client::Action;
use k8s_openapi::api::batch::v1::UncountedTerminatedPods;
use k8s_openapi::api::core::v1::Pod;

use super::{SyncContext, indexes, is_tracked, policy, retry, untrack};
use crate::common::{count, pods};

/// Pods named in one status; upstream's bound on its size.
const MOST_UNCOUNTED: usize = 500;

/// Ended pods, counted or not.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    pub succeeded: i32,
    pub failed: i32,
}

/// Moves named pods that have lost their finalizer (or are gone) into the counters.
pub fn settle(sync: &mut SyncContext) {
    let held: HashSet<&str> =
        sync.pods.iter().filter(|p| is_tracked(p)).filter_map(|p| p.metadata.uid.as_deref()).collect();
    let Some(named) = &mut sync.status.uncounted_terminated_pods else { return };
    let moved = |list: &mut Option<Vec<String>>| {
        let before = list.as_ref().map_or(0, Vec::len);
        if let Some(uids) = list {
            uids.retain(|uid| held.contains(uid.as_str()));
        }
        before - list.as_ref().map_or(0, Vec::len)
    };
    let (succeeded, failed) = (moved(&mut named.succeeded), moved(&mut named.failed));
    let add = |to: &mut Option<i32>, n: usize| {
        if n > 0 {
            *to = Some(count(*to) + n as i32);
        }
    };
    add(&mut sync.status.succeeded, succeeded);
    add(&mut sync.status.failed, failed);
}

fn named(sync: &SyncContext) -> (HashSet<String>, HashSet<String>) {
    let named = sync.status.uncounted_terminated_pods.clone().unwrap_or_default();
    let set = |list: Option<Vec<String>>| list.unwrap_or_default().into_iter().collect();
    (set(named.succeeded), set(named.failed))
}

/// All ended pods as the job should see them now.
pub fn totals(sync: &SyncContext) -> Totals {
    let (succeeded, failed) = named(sync);
    let fresh = |pod: &Pod| {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        is_tracked(pod) && !succeeded.contains(&uid) && !failed.contains(&uid)
    };
    let n = |test: &dyn Fn(&Pod) -> bool| sync.pods.iter().filter(|p| fresh(p) && test(p)).count() as i32;
    let mut totals = Totals {
        succeeded: count(sync.status.succeeded) + succeeded.len() as i32 + n(&|p| pods::phase(p) == "Succeeded"),
        failed: count(sync.status.failed) + failed.len() as i32 + n(&|p| counts_as_failed(sync, p)),
    };
    if sync.is_indexed() {
        totals.succeeded = sync.succeeded.len() as i32;
    }
    totals
}

fn counts_as_failed(sync: &SyncContext, pod: &Pod) -> bool {
    sync.has_failed(pod)
        && (!sync.is_indexed() || indexes::valid(sync, pod).is_some())
        && policy::verdict(sync, pod).counts
}

/// Names newly ended pods in the status and gives back what takes the finalizers off all that are named.
pub fn track(sync: &mut SyncContext, finishing: bool) -> Vec<Action> {
    let (mut succeeded, mut failed) = named(sync);
    let deleting = sync.job.metadata.deletion_timestamp.is_some();
    let mut untracked = Vec::new();
    let delayed = retry::kept_for_their_count(sync);
    let mut uncounted = sync.status.uncounted_terminated_pods.clone().unwrap_or_default();
    for pod in sync.pods.iter().filter(|p| is_tracked(p)) {
        if succeeded.len() + failed.len() >= MOST_UNCOUNTED {
            break;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if pods::phase(pod) == "Succeeded" {
            if !sync.is_indexed() && !failed.contains(&uid) && succeeded.insert(uid.clone()) {
                uncounted.succeeded.get_or_insert_default().push(uid);
            }
            untracked.push(untrack(pod));
        } else if sync.has_failed(pod) {
            if delayed.contains(&uid) && !finishing && !deleting {
                continue;
            }
            if counts_as_failed(sync, pod) && !succeeded.contains(&uid) && failed.insert(uid.clone()) {
                uncounted.failed.get_or_insert_default().push(uid);
            }
            untracked.push(untrack(pod));
        } else if deleting {
            untracked.push(untrack(pod));
        }
    }
    let kept = |list: Option<Vec<String>>| list.filter(|l| !l.is_empty());
    sync.status.uncounted_terminated_pods =
        Some(UncountedTerminatedPods { succeeded: kept(uncounted.succeeded), failed: kept(uncounted.failed) });
    if sync.is_indexed() {
        let done = sync.succeeded.len() as i32;
        sync.status.succeeded = (done != 0).then_some(done);
        sync.status.completed_indexes = Some(sync.succeeded.to_string()).filter(|s| !s.is_empty());
        if sync.spec.backoff_limit_per_index.is_some() {
            sync.status.failed_indexes = Some(sync.failed.to_string());
        }
    }
    untracked
}

/// Nothing is left to be counted.
pub fn is_settled(sync: &SyncContext) -> bool {
    let (succeeded, failed) = named(sync);
    succeeded.is_empty() && failed.is_empty() && !sync.pods.iter().any(|p| is_tracked(p))
}
