//! pod-garbage-collector-controller: removes pods that nobody else will: of nodes that are gone, going without ever
//! having been scheduled, of nodes taken out of service, and the oldest finished ones beyond a threshold. Keys are
//! nodes (namespace `node`), pods, and the one key for all finished pods.

use std::sync::Arc;
use std::time::Duration;

use client::{Delta, Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use serde_json::json;

use super::node_lifecycle::NODE;
use super::services::by_node;
use super::taint_eviction::disruption;
use crate::common::{acts, pods};
use crate::runner::Work;
use crate::setup::Setup;

/// A node must be gone this long before its pods are taken for lost: it may only be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Finished pods are counted this long after one finished, so that many are counted once.
const COUNT_AFTER: Duration = Duration::from_secs(20);

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Key prefixes: no namespace is called so.
const NODES: &str = "<node>";
const FINISHED: &str = "<finished>";
/// Index of pods that are terminal.
const ENDED: &str = "ended";

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<Pod>(NODE, by_node);
    setup.index::<Pod>(ENDED, |pod| if pods::is_terminal(pod) { vec![String::new()] } else { Vec::new() });
    let again = queue.clone();
    let nodes = setup.on(move |delta: &Delta<Node>| {
        let name = delta.object().metadata.name.clone().unwrap_or_default();
        match delta {
            Delta::Deleted(_) => again.add_after(Key::new(NODES, name), QUARANTINE),
            _ if is_out_of_service(delta.object()) => again.add(Key::new(NODES, name)),
            _ => {}
        }
    });
    let (again, known) = (queue.clone(), nodes.clone());
    let pods = setup.on(move |delta: &Delta<Pod>| {
        if !matches!(delta, Delta::Deleted(_)) {
            watch_pod(delta.object(), &again, |name| known.get_in("", name).as_deref().map(is_out_of_service));
        }
    });
    let executor = setup.executor("pod-garbage-collector-controller");
    let (client, threshold) = (setup.client(), setup.config.terminated_pod_gc_threshold);
    setup.run(Work::asking(&queue, executor, 1, move |key, now| {
        let (nodes, pods, client) = (nodes.clone(), pods.clone(), client.clone());
        async move {
            match key.namespace.as_str() {
                FINISHED if pods.count_by(ENDED, "") <= threshold => Plan::default(),
                FINISHED => finished(pods.by(ENDED, ""), threshold, now),
                NODES => {
                    let on_node = pods.by(NODE, &key.name);
                    match nodes.get_in("", &key.name) {
                        Some(node) => out_of_service(&node, &on_node, now),
                        None if on_node.is_empty() || !is_gone(&client, &key.name).await => Plan::default(),
                        None => orphaned(&on_node, now),
                    }
                }
                _ => pods.get(&key).map(|p| unscheduled(&p)).unwrap_or_default(),
            }
        }
    }));
}

/// The server's own word: the cache may be behind.
async fn is_gone(client: &kube::Client, node: &str) -> bool {
    matches!(Api::<Node>::all(client.clone()).get_opt(node).await, Ok(None))
}

fn watch_pod(pod: &Pod, queue: &WorkQueue<Key>, node: impl Fn(&str) -> Option<bool>) {
    if pods::is_terminal(pod) {
        queue.add_after(Key::new(FINISHED, ""), COUNT_AFTER);
    }
    match pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty()) {
        None if pods::is_terminating(pod) => queue.add(Key::of(pod)),
        None => {}
        Some(name) => match node(name) {
            None => queue.add_after(Key::new(NODES, name), QUARANTINE),
            Some(true) if pods::is_terminating(pod) => queue.add(Key::new(NODES, name)),
            Some(_) => {}
        },
    }
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.into_iter().any(|t| t.key == OUT_OF_SERVICE)
}

/// Deletes at once; a pod that has not ended is first said to have failed.
fn remove(pod: &Pod, why: Option<(&str, &str)>, plan: &mut Plan, now: Timestamp) {
    if !pods::is_terminal(pod) {
        let mut body = why.map_or_else(|| json!({"status": {}}), |(reason, message)| disruption(reason, message, now));
        body["status"]["phase"] = json!("Failed");
        plan.push(acts::patch_status(pod, body));
    }
    plan.push(acts::delete_now(pod));
}

fn unscheduled(pod: &Pod) -> Plan {
    let mut plan = Plan::default();
    let scheduled = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
    if pods::is_terminating(pod) && !scheduled {
        plan.push(acts::delete_now(pod));
    }
    plan
}

fn orphaned(all: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    all.iter().for_each(|p| remove(p, Some(("DeletionByPodGC", "PodGC: node no longer exists")), &mut plan, now));
    plan
}

fn out_of_service(node: &Node, all: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let ready = facts::nodes::status(node, facts::nodes::READY) == "True";
    if !ready && is_out_of_service(node) {
        all.iter().filter(|p| pods::is_terminating(p)).for_each(|p| remove(p, None, &mut plan, now));
    }
    plan
}

/// The oldest beyond the threshold go, evicted ones first.
fn finished(all: Vec<Arc<Pod>>, threshold: usize, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut ended: Vec<Arc<Pod>> = all.into_iter().filter(|p| pods::is_terminal(p)).collect();
    if threshold == 0 || ended.len() <= threshold {
        return plan;
    }
    let surplus = ended.len() - threshold;
    ended.sort_by_key(|p| {
        let evicted = p.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
        (!evicted, p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone())
    });
    ended.iter().take(surplus).for_each(|p| remove(p, None, &mut plan, now));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt;
    use testkit::model::{World, from};

    fn world(phases: &[&str]) -> World {
        let mut world = World::default();
        for (n, phase) in phases.iter().enumerate() {
            world.put(&from::<Pod>(json!({
                "metadata": {"name": format!("p{n}"), "namespace": "ns"},
                "spec": {"nodeName": "n", "containers": []}, "status": {"phase": phase}
            })));
            world.advance(1);
        }
        world
    }

    #[test]
    fn pods_of_a_node_that_is_gone_fail_and_go() {
        let mut world = world(&["Running", "Succeeded"]);
        let plan = orphaned(&world.list(), world.now);
        assert_eq!(plan.steps.len(), 3, "one status, two deletes");
        world.settle(|w| orphaned(&w.list(), w.now));
        assert!(world.list::<Pod>().is_empty());
    }

    #[test]
    fn the_oldest_finished_pods_go_beyond_the_threshold() {
        let mut world = world(&["Succeeded", "Running", "Failed", "Succeeded"]);
        world.settle(|w| finished(w.list(), 2, w.now));
        let left: Vec<String> = world.list::<Pod>().iter().map(|p| p.name_any()).collect();
        assert_eq!(left, ["p1", "p2", "p3"]);
    }

    #[test]
    fn only_a_terminating_pod_without_a_node_is_forced_out() {
        let mut world = world(&["Pending"]);
        let pod = world.list::<Pod>()[0].clone();
        assert!(unscheduled(&pod).is_empty());
        world.edit::<Pod>("ns", "p0", |p| {
            p.spec.as_mut().unwrap().node_name = None;
            p.metadata.finalizers = Some(vec!["held".into()]);
            p.metadata.deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
        });
        assert_eq!(unscheduled(&world.list::<Pod>()[0]).steps.len(), 1);
    }
}
