//! Pods to make and to delete so that as many run as should. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use client::Action;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::count::Totals;
use super::indexes::{self, INDEX};
use super::{Course, TRACKING, retry, untrack};
use crate::common::{acts, owners, pods, template};

/// Pods made or deleted in one go; upstream's bound.
const BURST: usize = 500;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Ends everything that still runs: the job is over. These pods are still counted, so they keep their finalizer.
pub fn delete_active(course: &mut Course) {
    let owner = acts::reference(course.job);
    let doomed: Vec<Action> = course.active().map(|p| acts::delete_pod(p.as_ref(), &owner)).collect();
    course.plan.together(doomed);
}

/// How many pods are made, and which are deleted.
pub fn pods(course: &mut Course, totals: &Totals) -> (usize, Vec<Arc<Pod>>) {
    let active: Vec<Arc<Pod>> = course.active().cloned().collect();
    if course.is_suspended() {
        course.plan.because("it is suspended");
    }
    let wanted = if course.is_suspended() { 0 } else { wanted(course, totals, active.len()) };
    let surplus = active.len().saturating_sub(wanted);
    let doomed = doomed(course, &active, surplus);
    if !doomed.is_empty() {
        delete(course, &doomed);
        return (0, doomed);
    }
    let going = |p: &&Arc<Pod>| pods::is_terminating(p) && !pods::is_terminal(p);
    let going = if course.replaces_ended_only() { course.pods.iter().filter(going).count() } else { 0 };
    let missing = wanted.saturating_sub(going + active.len()).min(BURST);
    let made = if missing > 0 { make(course, missing) } else { 0 };
    (made, Vec::new())
}

fn wanted(course: &Course, totals: &Totals, active: usize) -> usize {
    let parallelism = course.spec.parallelism.unwrap_or(1).max(0);
    let wanted = match course.spec.completions {
        // The first success means that the work is done: what runs may end, nothing new starts.
        None if totals.succeeded > 0 => return active,
        None => parallelism,
        Some(completions) => {
            let lost = if course.is_indexed() { course.failed.len() as i32 } else { 0 };
            (completions - totals.succeeded - lost).clamp(0, parallelism)
        }
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// Pods of wrong or doubled indexes, then the cheapest, until `surplus` are found.
fn doomed(course: &Course, active: &[Arc<Pod>], surplus: usize) -> Vec<Arc<Pod>> {
    let mut ranked: Vec<&Arc<Pod>> = active.iter().collect();
    ranked.sort_by(|a, b| pods::deletion_order((a, 0), (b, 0), course.now));
    let mut doomed: Vec<Arc<Pod>> = Vec::new();
    if course.is_indexed() {
        let mut kept: HashMap<i32, &Arc<Pod>> = HashMap::new();
        for pod in ranked.iter().rev() {
            match indexes::valid(course, pod) {
                Some(index) if !course.succeeded.contains(index) && !kept.contains_key(&index) => {
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
fn delete(course: &mut Course, doomed: &[Arc<Pod>]) {
    let owner = acts::reference(course.job);
    course.plan.together(doomed.iter().map(|p| untrack(p)).collect());
    course.plan.together(doomed.iter().map(|p| acts::delete_pod(p.as_ref(), &owner)).collect());
}

fn make(course: &mut Course, missing: usize) -> usize {
    let per_index = course.is_indexed() && course.spec.backoff_limit_per_index.is_some();
    if !per_index {
        let left = retry::left(course);
        if !left.is_zero() {
            course.plan.requeue(left).because("pods failed: no new ones before the backoff is over");
            return 0;
        }
    }
    let owner = acts::reference(course.job);
    let mut creates = Vec::new();
    if course.is_indexed() {
        let candidates = indexes::pending(course, if per_index { usize::MAX } else { missing });
        for index in candidates {
            if creates.len() >= missing {
                break;
            }
            let (failures, ignored, left) = if per_index { retry::of_index(course, index) } else { Default::default() };
            if !left.is_zero() {
                course.plan.requeue(left).because("pods of an index failed: its backoff is not over");
                continue;
            }
            let mut pod = indexed(course, index);
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
        creates = vec![acts::create_pod(&plain(course), &owner); missing];
    }
    let made = creates.len();
    course.plan.extend(acts::slow_start(creates));
    made
}

fn plain(course: &Course) -> Pod {
    let namespace = course.job.metadata.namespace.as_deref().unwrap_or("");
    let mut pod = template::pod(&course.spec.template, namespace, owners::owner_reference(course.job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == TRACKING) {
        finalizers.push(TRACKING.into());
    }
    pod
}

fn indexed(course: &Course, index: i32) -> Pod {
    let mut pod = plain(course);
    let name = format!("{}-{index}", course.job.metadata.name.as_deref().unwrap_or(""));
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
