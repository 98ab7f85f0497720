//! garbage-collector-controller: deletes what has no owner left, and deletes or orphans dependents as the deletion of
//! an owner asks for.
//!
//! - [`graph`]: who owns whom, over every kind that can be deleted; pure, fed by metadata watches
//! - [`decide`]: what to do about one object; pure, with what the server said about owners that no watch shows
//! - [`monitors`]: the metadata watches, following discovery; the only I/O besides the worker below

pub mod decide;
pub mod graph;
pub mod monitors;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use client::{Key, Plan, WorkQueue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DynamicObject};
use parking_lot::Mutex;

use crate::runner::Work;
use crate::setup::Setup;
use decide::{Next, Owner};
use graph::{Graph, Wake};
use monitors::Monitors;

/// The parts of the collector that its tasks share.
#[derive(Clone)]
pub struct Collector {
    pub graph: Arc<Mutex<Graph>>,
    pub queue: WorkQueue<Key>,
}

impl Collector {
    /// Changes the graph and queues what that wakes.
    pub fn change(&self, change: impl FnOnce(&mut Graph) -> Vec<Wake>) {
        let woken = change(&mut self.graph.lock());
        woken.into_iter().for_each(|w| self.queue.add(w.key()));
    }
}

pub fn start(setup: &mut Setup) {
    let collector = Collector { graph: Arc::default(), queue: WorkQueue::default() };
    let (watcher, own) = (setup.root_client(), setup.client());
    let monitors = Monitors::start(watcher, collector.clone(), setup.shutdown());
    let executor = setup.executor("garbage-collector-controller");
    let workers = setup.config.concurrency.garbage_collector;
    let queue = collector.queue.clone();
    setup.run(Work::asking(&queue, executor, workers, move |key, _| {
        let (collector, monitors, client) = (collector.clone(), monitors.clone(), own.clone());
        async move {
            monitors.synced().await;
            let Some(wake) = Wake::of(&key) else { return Plan::default() };
            collect(&collector, &monitors, &client, &wake).await
        }
    }));
}

/// Decides about one object, asking the server about owners that the graph has not seen.
async fn collect(collector: &Collector, monitors: &Monitors, client: &kube::Client, wake: &Wake) -> Plan {
    let mut asked: HashMap<String, Owner> = HashMap::new();
    loop {
        let next = decide::next(&collector.graph.lock(), wake, &asked, |r| monitors.is_namespaced(r));
        match next {
            Next::Do(plan) => return plan,
            Next::Ask { owner, namespace } => {
                let answer = look(monitors, client, &owner, &namespace).await;
                if answer == Owner::Unknown {
                    // Its kind is not served (now): looked at again when discovery changes.
                    monitors.wait_for_kind(wake.clone());
                    return Plan::default();
                }
                if answer == Owner::Absent {
                    collector.change(|g| g.owner_is_gone(&owner.uid));
                }
                asked.insert(owner.uid, answer);
            }
        }
    }
}

/// Whether an owner exists, by the server's own word.
async fn look(monitors: &Monitors, client: &kube::Client, owner: &OwnerReference, namespace: &str) -> Owner {
    let Some((resource, namespaced)) = monitors.resource_of(owner) else { return Owner::Unknown };
    let api: Api<DynamicObject> = if namespaced {
        Api::namespaced_with(client.clone(), namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    match api.get_metadata_opt(&owner.name).await {
        Ok(Some(found)) if found.metadata.uid.as_deref() == Some(&owner.uid) => {
            let waits = graph::has(found.metadata.finalizers.as_deref(), graph::FOREGROUND);
            if found.metadata.deletion_timestamp.is_some() && waits { Owner::Waiting } else { Owner::Present }
        }
        Ok(_) => Owner::Absent,
        Err(kube::Error::Api(status)) if status.code == 404 => Owner::Absent,
        Err(error) => {
            tracing::debug!(%error, owner = owner.name, "owner not looked up");
            Owner::Unknown
        }
    }
}
