//! Pods to make and to delete so that as many run as should. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use client::Action;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::count::Totals;
use super::indexes::{self, INDEX};
use super::{SyncContext, TRACKING, retry, untrack};
use crate::common::{acts, owners, pods, template};

/// Pods made or deleted in one go; upstream's bound.
const BURST: usize = 500;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Ends everything that still runs: the job is over. These pods are still counted, so they keep their finalizer.
pub fn delete_active(sync: &mut SyncContext) {
    let owner = client::reference(sync.job);
    let doomed: Vec<Action> = sync.active().map(|p| acts::delete_pod(p.as_ref(), &owner)).collect();
    sync.plan.together(doomed);
}

/// How many pods are made, and which are deleted.
pub fn pods(sync: &mut SyncContext, totals: &Totals) -> (usize, Vec<Arc<Pod>>) {
    let active: Vec<Arc<Pod>> = sync.active().cloned().collect();
    if sync.is_suspended() {
        sync.plan.because("it is suspended");
    }
    let wanted = if sync.is_suspended() { 0 } else { wanted(sync, totals, active.len()) };
    let surplus = active.len().saturating_sub(wanted);
    let doomed = doomed(sync, &active, surplus);
    if !doomed.is_empty() {
        delete(sync, &doomed);
        return (0, doomed);
    }
    let going = |p: &&Arc<Pod>| pods::is_terminating(p) && !pods::is_terminal(p);
    let going = if sync.replaces_ended_only() { sync.pods.iter().filter(going).count() } else { 0 };
    let missing = wanted.saturating_sub(going + active.len()).min(BURST);
    let made = if missing > 0 { make(sync, missing) } else { 0 };
    (made, Vec::new())
}

fn wanted(sync: &SyncContext, totals: &Totals, active: usize) -> usize {
    let parallelism = sync.spec.parallelism.unwrap_or(1).max(0);
    let wanted = match sync.spec.completions {
        // The first success means that the work is done: what runs may end, nothing new starts.
        None if totals.succeeded > 0 => return active,
        None => parallelism,
        Some(completions) => {
            let lost = if sync.is_indexed() { sync.failed.len() as i32 } else { 0 };
            (completions - totals.succeeded - lost).clamp(0, parallelism)
        }
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// Pods of wrong or doubled indexes, then the cheapest, until `surplus` are found.
fn doomed(sync: &SyncContext, active: &[Arc<Pod>], surplus: usize) -> Vec<Arc<Pod>> {
    let mut ranked: Vec<&Arc<Pod>> = active.iter().collect();
    ranked.sort_by(|a, b| pods::deletion_order((a, 0), (b, 0), sync.now));
    let mut doomed: Vec<Arc<Pod>> = Vec::new();
    if sync.is_indexed() {
        let mut kept: HashMap<i32, &Arc<Pod>> = HashMap::new();
        for pod in ranked.iter().rev() {
            match indexes::valid(sync, pod) {
                Some(index) if !sync.succeeded.contains(index) && !kept.contains_key(&index) => {
                    kept.insert(index, pod);
                }
                _ => doomed.push((*pod).clone()),
            }
        }
    }
    let is_doomed = |p: &Arc<Pod>, doomed: &[Arc<Pod>]| doomed.iter().any(|d| Arc::ptr_eq(d, p));
    for pod in ranked {
        if doomed.len() >= surplus {
            break;
        }
        if !is_doomed(pod, &doomed) {
            doomed.push(pod.clone());
        }
    }
    doomed.truncate(BURST);
    doomed
}

/// Deleted because it is not wanted, not because it failed: it is let go uncounted.
fn delete(sync: &mut SyncContext, doomed: &[Arc<Pod>]) {
    let owner = client::reference(sync.job);
    sync.plan.together(doomed.iter().map(|p| untrack(p)).collect());
    sync.plan.together(doomed.iter().map(|p| acts::delete_pod(p.as_ref(), &owner)).collect());
}

fn make(sync: &mut SyncContext, missing: usize) -> usize {
    let per_index = sync.is_indexed() && sync.spec.backoff_limit_per_index.is_some();
    if !per_index {
        let left = retry::left(sync);
        if !left.is_zero() {
            sync.plan.requeue(left).because("pods failed: no new ones before the backoff is over");
            return 0;
        }
    }
    let owner = client::reference(sync.job);
    let mut creates = Vec::new();
    if sync.is_indexed() {
        let candidates = indexes::pending(sync, if per_index { usize::MAX } else { missing });
        for index in candidates {
            if creates.len() >= missing {
                break;
            }
            let (failures, ignored, left) = if per_index { retry::of_index(sync, index) } else { Default::default() };
            if !left.is_zero() {
                sync.plan.requeue(left).because("pods of an index failed: its backoff is not over");
                continue;
            }
            let mut pod = indexed(sync, index);
            if per_index {
                let notes = pod.metadata.annotations.get_or_insert_default();
                notes.insert(retry::FAILURES.into(), failures.to_string());
                if ignored > 0 {
                    notes.insert(retry::IGNORED.into(), ignored.to_string());
                }
            }
            creates.push(acts::create_pod(&pod, &owner));
        }
    } else {
        creates = vec![acts::create_pod(&plain(sync), &owner); missing];
    }
    let made = creates.len();
    sync.plan.extend(acts::slow_start(creates));
    made
}

fn plain(sync: &SyncContext) -> Pod {
    let namespace = sync.job.metadata.namespace.as_deref().unwrap_or("");
    let mut pod = template::pod(&sync.spec.template, namespace, owners::owner_reference(sync.job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == TRACKING) {
        finalizers.push(TRACKING.into());
    }
    pod
}

fn indexed(sync: &SyncContext, index: i32) -> Pod {
    let mut pod = plain(sync);
    let name = format!("{}-{index}", sync.job.metadata.name.as_deref().unwrap_or(""));
    pod.metadata.generate_name = Some(template::name_prefix(&name));
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell_index);
    pod
}

fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|v| v.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
    env.push(EnvVar {
        name: INDEX_VARIABLE.into(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        value: None,
    });
}
