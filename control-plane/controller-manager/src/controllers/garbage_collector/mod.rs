//! garbage-collector-controller: deletes what has no owner left, and deletes or orphans dependents as the deletion of
//! an owner asks for.
//!
//! - [`graph`]: who owns whom, over every kind that can be deleted; pure, fed by metadata watches
//! - [`gone`]: owners known not to exist
//! - [`decide`]: what to do about one object; pure, with what the server said about owners that no watch shows
//! - [`monitors`]: the metadata watches, following discovery; the only I/O besides the worker below

pub mod decide;
pub mod gone;
pub mod graph;
pub mod monitors;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::{Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DynamicObject};
use parking_lot::Mutex;

use crate::common::backoff::Backoff;
use crate::runner::Work;
use crate::setup::Setup;
use decide::{Asked, Next, Owner};
use gone::Coordinates;
use graph::{Graph, Wake};
use monitors::Monitors;

/// A question that the server could not answer is asked again after the first, then twice as long up to the other.
const UNANSWERED: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(120)];

/// The parts of the collector that its tasks share.
#[derive(Clone)]
pub struct Collector {
    pub graph: Arc<Mutex<Graph>>,
    pub queue: WorkQueue<Key>,
    unanswered: Arc<Mutex<Backoff<Wake>>>,
}

impl Default for Collector {
    fn default() -> Collector {
        let unanswered = Arc::new(Mutex::new(Backoff::new(UNANSWERED[0], UNANSWERED[1])));
        Collector { graph: Arc::default(), queue: WorkQueue::default(), unanswered }
    }
}

impl Collector {
    /// Changes the graph and queues what that wakes.
    pub fn change(&self, change: impl FnOnce(&mut Graph) -> Vec<Wake>) {
        let woken = change(&mut self.graph.lock());
        woken.into_iter().for_each(|w| self.queue.add(w.key()));
    }
}

pub fn start(setup: &mut Setup) {
    let collector = Collector::default();
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
    let mut asked = Asked::new();
    loop {
        let next = decide::next(&collector.graph.lock(), wake, &asked, |r| monitors.is_namespaced(r));
        let (owner, namespace) = match next {
            Next::Do(plan) => return plan,
            Next::Ask { owner, namespace } => (owner, namespace),
        };
        let Some((resource, namespaced)) = monitors.resource_of(&owner) else {
            // Its kind is not served (now): looked at again when discovery changes.
            monitors.wait_for_kind(wake.clone(), &owner);
            return Plan::default();
        };
        let place = if namespaced { namespace.as_str() } else { "" };
        let Some(answer) = look(client, &resource, &owner, place).await else {
            let (now, mut backoff) = (Timestamp::now(), collector.unanswered.lock());
            backoff.tried(wake.clone(), now);
            return Plan { requeue_after: Some(backoff.left(wake, now)), ..Plan::default() };
        };
        if answer == Owner::Absent {
            collector.graph.lock().owner_is_gone(Coordinates::of(&owner, place));
        }
        asked.push((owner, answer));
    }
}

/// Whether an owner exists, by the server's own word; `None`: it could not say.
async fn look(client: &kube::Client, resource: &ApiResource, owner: &OwnerReference, namespace: &str) -> Option<Owner> {
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, resource)
    };
    match api.get_metadata(&owner.name).await {
        Ok(found) if found.metadata.uid.as_deref() == Some(&owner.uid) => {
            let waits = graph::has(found.metadata.finalizers.as_deref(), graph::FOREGROUND);
            Some(if found.metadata.deletion_timestamp.is_some() && waits { Owner::Waiting } else { Owner::Present })
        }
        Ok(_) => Some(Owner::Absent),
        // That the path is not served (now) says nothing of the object: only an answer about it does.
        Err(kube::Error::Api(s)) if s.code == 404 && s.details.as_ref().is_some_and(|d| d.name == owner.name) => {
            Some(Owner::Absent)
        }
        Err(error) => {
            tracing::debug!(%error, owner = owner.name, "owner not looked up");
            None
        }
    }
}
