//! node-lifecycle-controller: a node whose kubelet is not heard of becomes Unknown, conditions become taints, and
//! pods of a node that is not ready leave the services. Heartbeats are leases and node status; they are timed by when
//! they were seen here, so that a node's clock doesn't matter. Keys are nodes, one at a time.
//!
//! - [`health`]: conditions after silence, and the taints that conditions mean
//! - [`zones`]: how fast nodes of a zone may be given NoExecute taints
//! - here: who is told of what; I/O: the clock

pub mod health;
#[cfg(test)]
mod tests;
pub mod zones;

use std::collections::HashMap;
use std::sync::Arc;

use client::{Delta, Key, Plan, WorkQueue};
use facts::nodes::{self, LEASES, READY};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use parking_lot::Mutex;
use serde_json::json;

use crate::common::{acts, pods, template};
use crate::config::Config;
use crate::controllers::services::by_node;
use crate::runner::Work;
use crate::setup::{Setup, Shared};
use health::seconds;
use zones::{Rates, Zones};

pub const NODE: &str = "node";

/// When each node was last heard of.
#[derive(Debug, Default)]
struct Heard(HashMap<String, Last>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Last {
    lease: Option<MicroTime>,
    condition: Option<Time>,
    at: Option<Timestamp>,
}

impl Heard {
    fn lease(&mut self, node: &str, renewed: Option<MicroTime>, now: Timestamp) {
        let last = self.0.entry(node.to_owned()).or_default();
        if renewed > last.lease {
            last.lease = renewed;
            last.at = Some(now);
        }
    }

    fn status(&mut self, node: &str, heartbeat: Option<Time>, now: Timestamp) {
        let last = self.0.entry(node.to_owned()).or_default();
        let later = |a: &Option<Time>, b: &Option<Time>| a.as_ref().map(|t| t.0) > b.as_ref().map(|t| t.0);
        if later(&heartbeat, &last.condition) {
            last.condition = heartbeat;
            last.at = Some(now);
        }
    }
}

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let heard: Arc<Mutex<Heard>> = Arc::default();
    let zones: Arc<Mutex<Zones>> = Arc::default();
    setup.index::<Pod>(NODE, by_node);
    let nodes = watch_nodes(setup, &queue, &heard, &zones);
    watch_leases(setup, &queue, &heard, nodes.clone());
    let pods = setup.watch::<Pod>();
    let executor = setup.executor("node-controller");
    let config = setup.config.clone();
    let work = Work::new(&queue, executor, 1, move |key, now| {
        let Some(node) = nodes.get(key) else {
            heard.lock().0.remove(&key.name);
            return Plan::default();
        };
        let at = heard.lock().0.get(&key.name).and_then(|l| l.at);
        let pods = pods.by(NODE, &key.name);
        reconcile(&View { node: &node, heard: at, pods, config: &config }, &mut zones.lock(), now)
    });
    setup.run(work.serial());
}

fn watch_nodes(
    setup: &mut Setup,
    queue: &WorkQueue<Key>,
    heard: &Arc<Mutex<Heard>>,
    zones: &Arc<Mutex<Zones>>,
) -> Shared<Node> {
    let (queue, heard, zones, rates) = (queue.clone(), heard.clone(), zones.clone(), Rates::of(setup.config));
    let all = setup.watch::<Node>();
    setup.on(move |delta: &Delta<Node>| {
        let node = delta.object();
        let name = node.metadata.name.as_deref().unwrap_or("");
        heard.lock().status(
            name,
            nodes::condition(node, READY).and_then(|c| c.last_heartbeat_time.clone()),
            Timestamp::now(),
        );
        queue.add(Key::new("", name));
        let changed = match delta {
            Delta::Deleted(_) => zones.lock().forget(name, &rates),
            _ => zones.lock().see(node, &rates),
        };
        if changed {
            // Other nodes may now be tainted, or must be no more.
            all.list().iter().for_each(|n| queue.add(Key::of(n.as_ref())));
        }
    })
}

/// A heartbeat only moves the clock: the node is looked at when its grace is over, or now if it was silent.
fn watch_leases(setup: &mut Setup, queue: &WorkQueue<Key>, heard: &Arc<Mutex<Heard>>, nodes: Shared<Node>) {
    let (queue, heard) = (queue.clone(), heard.clone());
    setup.on(move |delta: &Delta<Lease>| {
        let lease = delta.object();
        if lease.metadata.namespace.as_deref() != Some(LEASES) || matches!(delta, Delta::Deleted(_)) {
            return;
        }
        let name = lease.metadata.name.as_deref().unwrap_or("");
        let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.clone());
        heard.lock().lease(name, renewed, Timestamp::now());
        let silent = nodes.get_in("", name).is_some_and(|n| nodes::status(&n, READY) == "Unknown");
        if silent {
            queue.add(Key::new("", name));
        }
    });
}

pub struct View<'a> {
    pub node: &'a Node,
    /// When it was last heard of; `None` if never since this process started.
    pub heard: Option<Timestamp>,
    /// The pods on it.
    pub pods: Vec<Arc<Pod>>,
    pub config: &'a Config,
}

fn reconcile(view: &View, zones: &mut Zones, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let node = view.node;
    let created = node.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let known = nodes::condition(node, READY).is_some();
    let grace = if known { view.config.node_monitor_grace_period } else { view.config.node_startup_grace_period };
    let since = view.heard.unwrap_or(if known { now } else { created });
    let silent = seconds(now) - seconds(since);
    let left = grace.as_secs() as i64 - silent;
    if left < 0 {
        if let Some(next) = health::silenced(node, now) {
            plan.push(acts::update_status(&next));
            let was_ready = nodes::status(node, READY) == "True";
            not_ready(view, was_ready, &mut plan, now);
            // The taints follow when the node shows its new conditions.
            return plan;
        }
    } else {
        plan.requeue(std::time::Duration::from_secs(left as u64 + 1));
    }
    if known && nodes::status(node, READY) != "True" {
        not_ready(view, false, &mut plan, now);
    }
    let taints = health::taints(node, zones, now, &mut plan);
    if !template::equal(&taints, &node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default()) {
        let mut next = node.clone();
        next.spec.get_or_insert_default().taints = (!taints.is_empty()).then_some(taints);
        plan.push(acts::update(&next));
    }
    plan
}

/// Pods of a node that is not ready are not ready either, whatever their last probe said.
fn not_ready(view: &View, tell: bool, plan: &mut Plan, now: Timestamp) {
    let name = view.node.metadata.name.as_deref().unwrap_or("");
    if tell {
        let note = format!("Node {name} status is now: NodeNotReady");
        plan.push(acts::normal(view.node, "NodeNotReady", note));
    }
    for pod in view.pods.iter().filter(|p| pods::is_ready(p)) {
        let condition: NodeCondition = NodeCondition {
            type_: READY.into(),
            status: "False".into(),
            last_transition_time: Some(Time(health::whole(now))),
            ..NodeCondition::default()
        };
        plan.push(acts::patch_status(pod.as_ref(), json!({"status": {"conditions": [condition]}})));
        plan.push(acts::warning(pod.as_ref(), "NodeNotReady", "Node is not ready".into()));
    }
}
