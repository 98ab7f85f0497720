//! taint-eviction-controller: pods leave nodes whose NoExecute taints they don't tolerate, at once or when their
//! toleration's seconds are over. Keys are pods.

use std::collections::HashMap;
use std::time::Duration;

use client::{Delta, Key, Plan, WorkQueue};
use facts::taints::{NO_EXECUTE, tolerates};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use parking_lot::Mutex;
use serde_json::json;

use super::node_lifecycle::NODE;
use super::services::by_node;
use crate::common::{acts, pods};
use crate::runner::Work;
use crate::setup::Setup;

/// Workers; upstream shards its updates over as many.
const WORKERS: usize = 8;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<Pod>(NODE, by_node);
    let again = queue.clone();
    let pods = setup.on(move |delta: &Delta<Pod>| {
        let facts = |p: &Pod| p.spec.as_ref().map(|s| (s.node_name.clone(), s.tolerations.clone()));
        match delta {
            Delta::Updated { old, new } if facts(old) == facts(new) => {}
            other => again.add(Key::of(other.object().as_ref())),
        }
    });
    let (again, on_node) = (queue.clone(), pods.clone());
    let nodes = setup.on(move |delta: &Delta<Node>| {
        let changed = match delta {
            Delta::Updated { old, new } => evicting(old) != evicting(new),
            Delta::Added(node) => !evicting(node).is_empty(),
            Delta::Deleted(_) => false,
        };
        if changed {
            let name = delta.object().metadata.name.as_deref().unwrap_or("");
            on_node.by(NODE, name).iter().for_each(|p| again.add(Key::of(p.as_ref())));
        }
    });
    let executor = setup.executor("taint-eviction-controller");
    // Since when each pod (by uid) has had to tolerate something: taints set by hand carry no time.
    let since: Mutex<HashMap<Key, (String, Timestamp)>> = Mutex::default();
    setup.run(Work::new(&queue, executor, WORKERS, move |key, now| {
        let pod = pods.get(key);
        let node = pod.as_ref().and_then(|p| nodes.get_in("", p.spec.as_ref()?.node_name.as_deref()?));
        let mut since = since.lock();
        let uid = pod.as_ref().and_then(|p| p.metadata.uid.clone()).unwrap_or_default();
        let started = since.get(key).filter(|(known, _)| *known == uid).map(|(_, at)| *at);
        let (plan, next) = reconcile(pod.as_deref(), node.as_deref(), started, now);
        match next {
            Some(at) => since.insert(key.clone(), (uid, at)),
            None => since.remove(key),
        };
        plan
    }));
}

fn evicting(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == NO_EXECUTE).cloned().collect()
}

/// `started`: since when the pod tolerates for a time only. Gives back what to remember of that.
fn reconcile(
    pod: Option<&Pod>,
    node: Option<&Node>,
    started: Option<Timestamp>,
    now: Timestamp,
) -> (Plan, Option<Timestamp>) {
    let mut plan = Plan::default();
    let (Some(pod), Some(node)) = (pod, node) else { return (plan, None) };
    let name = Key::of(pod);
    let taints = evicting(node);
    let none = Vec::new();
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref()).unwrap_or(&none);
    let limit = if pods::is_terminating(pod) { Tolerated::Always } else { tolerated(&taints, tolerations) };
    match limit {
        Tolerated::Always => {
            if started.is_some() && !pods::is_terminating(pod) {
                plan.push(acts::normal(pod, "TaintManagerEviction", format!("Cancelling deletion of Pod {name}")));
            }
            (plan, None)
        }
        Tolerated::For(wait) => {
            let since = started.unwrap_or(now);
            let left = since.as_second() + wait - now.as_second();
            if left > 0 {
                plan.requeue(Duration::from_secs(left as u64)).because("the taint is tolerated for a time");
                return (plan, Some(since));
            }
            evict(pod, &name, &mut plan, now);
            (plan, None)
        }
    }
}

fn evict(pod: &Pod, name: &Key, plan: &mut Plan, now: Timestamp) {
    let known = pods::condition(pod, "DisruptionTarget").is_some_and(|c| c.status == "True");
    if !known {
        plan.push(acts::patch_status(
            pod,
            disruption("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now),
        ));
    }
    plan.push(acts::normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {name}")));
    plan.push(acts::delete(pod));
}

/// The patch of a pod's status that says why it is about to be deleted.
pub fn disruption(reason: &str, message: &str, now: Timestamp) -> serde_json::Value {
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    json!({"status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": at
    }]}})
}

#[derive(Debug, PartialEq)]
enum Tolerated {
    Always,
    /// Seconds; zero is not at all.
    For(i64),
}

fn tolerated(taints: &[Taint], tolerations: &[Toleration]) -> Tolerated {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let mut matching = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
        if matching.peek().is_none() {
            return Tolerated::For(0);
        }
        let limits = matching.filter_map(|t| t.toleration_seconds);
        shortest = limits.map(|s| s.max(0)).chain(shortest).min();
    }
    shortest.map_or(Tolerated::Always, Tolerated::For)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use testkit::model::{World, at, from};

    fn setup(tolerations: serde_json::Value) -> (Arc<Pod>, Arc<Node>, World) {
        let mut world = World::default();
        let pod: Pod = from(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": "n", "containers": [], "tolerations": tolerations}
        }));
        let node: Node = from(json!({
            "metadata": {"name": "n"}, "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}
        }));
        (world.put(&pod), world.put(&node), world)
    }

    #[test]
    fn a_pod_that_tolerates_nothing_goes_at_once_and_says_why() {
        let (pod, node, mut world) = setup(json!([]));
        let (plan, _) = reconcile(Some(&pod), Some(&node), None, world.now);
        world.apply(&plan);
        assert!(world.get::<Pod>("ns", "p").is_none());
        assert_eq!(world.events, ["TaintManagerEviction: Marking for deletion Pod ns/p"]);
    }

    #[test]
    fn seconds_count_from_when_the_taint_was_seen() {
        let (pod, node, world) = setup(json!([
            {"key": "k", "operator": "Exists", "tolerationSeconds": 30}, {"operator": "Exists", "tolerationSeconds": 60}
        ]));
        let (plan, since) = reconcile(Some(&pod), Some(&node), None, world.now);
        assert_eq!((plan.requeue_after, plan.steps.len()), (Some(Duration::from_secs(30)), 0));
        let later = at(world.now.as_second() + 20);
        let (plan, since) = reconcile(Some(&pod), Some(&node), since, later);
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(10)));
        let (plan, _) = reconcile(Some(&pod), Some(&node), since, at(world.now.as_second() + 30));
        assert!(!plan.steps.is_empty());
        let (plan, since) = reconcile(Some(&pod), Some(&Node::default()), since, later);
        assert!(since.is_none() && plan.steps.len() == 1, "the taint is gone: cancelled and said so");
    }

    #[test]
    fn a_toleration_without_seconds_is_for_ever() {
        let (pod, node, world) = setup(json!([{"key": "k", "value": "v", "effect": "NoExecute"}]));
        assert!(reconcile(Some(&pod), Some(&node), None, world.now).0.is_empty());
        let (pod, node, world) = setup(json!([{"key": "k", "value": "other"}]));
        assert!(!reconcile(Some(&pod), Some(&node), None, world.now).0.is_empty());
    }
}
