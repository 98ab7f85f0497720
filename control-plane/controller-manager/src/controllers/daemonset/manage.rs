//! Pods to make and to delete so that every node that should has exactly one. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use client::{Action, Plan, Step};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;

use super::{Failed, SyncContext, nodes, revision_of, update};
use crate::common::{acts, count, pods};

/// Pods made or deleted in one go; upstream's burst.
const BURST: usize = 250;

/// What to do.
#[derive(Debug, Default)]
pub struct Changes {
    /// Nodes to make pods for.
    pub make: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.make.is_empty() && self.delete.is_empty()
    }

    pub fn steps(&self, sync: &SyncContext) -> Vec<Step> {
        let owner = client::reference(sync.set);
        let make = self.make.iter().take(BURST);
        let make = make.map(|node| acts::create_pod(&nodes::pod(sync.set, node, &sync.hash), &owner));
        let mut steps = acts::slow_start(make.collect());
        let delete: Vec<Action> =
            self.delete.iter().take(BURST).map(|p| acts::delete_pod(p.as_ref(), &owner)).collect();
        if !delete.is_empty() {
            steps.push(Step::Together(delete));
        }
        steps
    }
}

pub fn changes(sync: &SyncContext, failed: &mut Failed, plan: &mut Plan) -> Changes {
    let mut changes = Changes::default();
    let none = Vec::new();
    for node in sync.nodes {
        let name = node.metadata.name.as_deref().unwrap_or("");
        let fit = nodes::fit(sync.set, node);
        let here = sync.pods.get(name).unwrap_or(&none);
        if fit.runs && here.is_empty() {
            changes.make.push(name.to_owned());
        } else if fit.keeps {
            on_node(sync, name, here, failed, plan, &mut changes);
        } else {
            changes.delete.extend(here.iter().filter(|p| !pods::is_terminating(p)).cloned());
        }
    }
    // Pods pinned to nodes that are gone will never run. Those that were bound are pod GC's.
    let known: HashSet<&str> = sync.nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
    let lost = sync.pods.iter().filter(|(node, _)| !known.contains(node.as_str())).flat_map(|(_, p)| p);
    let unbound = |p: &&Arc<Pod>| p.spec.as_ref().is_none_or(|s| s.node_name.as_deref().unwrap_or("").is_empty());
    changes.delete.extend(lost.filter(|p| unbound(p) && !pods::is_terminating(p)).cloned());
    changes
}

fn on_node(
    sync: &SyncContext,
    node: &str,
    here: &[Arc<Pod>],
    failed: &mut Failed,
    plan: &mut Plan,
    changes: &mut Changes,
) {
    let set = sync.set;
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in here.iter().filter(|p| !pods::is_terminating(p)) {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        match pods::phase(pod) {
            "Failed" => {
                let key = (set.metadata.uid.clone().unwrap_or_default(), node.to_owned());
                let wait = failed.left(&key, sync.now);
                if !wait.is_zero() {
                    plan.requeue(wait).because("a failed pod waits for its backoff");
                    continue;
                }
                failed.tried(key, sync.now);
                let note = format!("Found failed daemon pod {} on node {node}, will try to kill it", full(set, name));
                plan.push(acts::warning(set, "FailedDaemonPod", note));
                changes.delete.push(pod.clone());
            }
            "Succeeded" => {
                let note =
                    format!("Found succeeded daemon pod {} on node {node}, will try to delete it", full(set, name));
                plan.push(acts::normal(set, "SucceededDaemonPod", note));
                changes.delete.push(pod.clone());
            }
            _ => running.push(pod),
        }
    }
    running.sort_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone()));
    if update::surge(set, 1) == 0 {
        changes.delete.extend(running.into_iter().skip(1).cloned());
    } else {
        changes.delete.extend(beyond_surge(sync, &running));
    }
}

fn full(set: &DaemonSet, pod: &str) -> String {
    format!("{}/{pod}", set.metadata.namespace.as_deref().unwrap_or(""))
}

/// While surging, one old and one new pod may share a node until the new one is available.
fn beyond_surge(sync: &SyncContext, running: &[&Arc<Pod>]) -> Vec<Arc<Pod>> {
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = running.iter().partition(|p| revision_of(p) == sync.hash);
    let mut doomed: Vec<Arc<Pod>> = new.iter().chain(&old).map(|p| (*p).clone()).collect();
    let kept =
        |p: &Arc<Pod>| new.first().is_some_and(|k| Arc::ptr_eq(k, p)) || old.first().is_some_and(|k| Arc::ptr_eq(k, p));
    doomed.retain(|p| !kept(p));
    if let (Some(new), Some(old)) = (new.first(), old.first()) {
        let available = pods::is_available(new, count(sync.set.spec.min_ready_seconds), sync.now);
        if !pods::is_ready(old) || available {
            doomed.push((*old).clone());
        }
    }
    doomed
}
