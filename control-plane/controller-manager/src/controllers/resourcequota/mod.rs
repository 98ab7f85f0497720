//! resourcequota-controller: `status.hard` and `status.used` of quotas. Admission counts up as it lets objects in; this
//! counts anew whenever something in the namespace comes, goes or ends, which gives back what is used no more.
//! Keys are quotas.
//!
//! - [`counters`]: how many objects of a kind a namespace has, for `count/<resource>`; the only I/O besides the worker

mod counters;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Delta, Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use kinds::quota::{self, Tally};
use serde::Serialize;
use serde_json::Value;

use crate::common::{acts, pods, template};
use crate::runner::Work;
use crate::setup::{Setup, Shared};
use counters::Counters;

/// A quota may count a kind that is not served yet: looked at again after this long, as upstream follows discovery.
const UNSERVED: Duration = Duration::from_secs(30);

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let quotas = setup.queue_own::<ResourceQuota>(&queue);
    let wake = {
        let (queue, quotas) = (queue.clone(), quotas.clone());
        move |namespace: &str| quotas.list_in(namespace).iter().for_each(|q| queue.add(Key::of(q.as_ref())))
    };
    let measured = Measured::watch(setup, &wake);
    let counters = Counters::new(setup.root_client(), setup.shutdown(), wake);
    let executor = setup.executor("resourcequota-controller");
    let workers = setup.config.concurrency.resourcequota;
    setup.run(Work::asking(&queue, executor, workers, move |key, now| {
        let (quotas, measured, counters) = (quotas.clone(), measured.clone(), counters.clone());
        async move {
            let Some(quota) = quotas.get(&key) else { return Plan::default() };
            let value = json(quota.as_ref());
            let mut numbers = BTreeMap::new();
            for resource in Tally::new(&value, now).resources() {
                if !quota::MEASURED.contains(&resource.as_str()) {
                    let number = counters.count(&resource, &key.namespace).await;
                    numbers.insert(resource, number);
                }
            }
            reconcile(&quota, &measured.of(&value, &key.namespace, now), &numbers, now)
        }
    }));
}

fn json<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Objects whose quota depends on what is in them.
#[derive(Clone)]
struct Measured {
    pods: Shared<Pod>,
    services: Shared<Service>,
    claims: Shared<PersistentVolumeClaim>,
}

impl Measured {
    fn watch(setup: &mut Setup, wake: &(impl Fn(&str) + Clone + Send + 'static)) -> Measured {
        fn on<K>(
            setup: &mut Setup,
            wake: &(impl Fn(&str) + Clone + Send + 'static),
            changes: fn(&K, &K) -> bool,
        ) -> Shared<K>
        where
            K: client::informer::Watched + kube::Resource<DynamicType = ()>,
        {
            let wake = wake.clone();
            setup.on(move |delta: &Delta<K>| {
                let counts = match delta {
                    Delta::Updated { old, new } => changes(old, new),
                    Delta::Added(_) | Delta::Deleted(_) => true,
                };
                if counts {
                    wake(delta.object().meta().namespace.as_deref().unwrap_or(""));
                }
            })
        }
        Measured {
            pods: on(setup, wake, |old, new| facts(old) != facts(new)),
            services: on(setup, wake, |old, new| old.spec != new.spec),
            claims: on(setup, wake, |old, new| old.spec != new.spec || old.status != new.status),
        }
    }

    /// What of them the quota counts, as values.
    fn of(&self, quota: &Value, namespace: &str, now: Timestamp) -> BTreeMap<&'static str, Vec<Value>> {
        fn values<K: Serialize>(objects: &[Arc<K>]) -> Vec<Value> {
            objects.iter().map(|object| json(object.as_ref())).collect()
        }
        let wanted = Tally::new(quota, now).resources();
        let mut found = BTreeMap::new();
        for resource in quota::MEASURED.into_iter().filter(|r| wanted.iter().any(|w| w == r)) {
            let objects = match resource {
                "pods" => values(&self.pods.list_in(namespace)),
                "services" => values(&self.services.list_in(namespace)),
                _ => values(&self.claims.list_in(namespace)),
            };
            found.insert(resource, objects);
        }
        found
    }
}

/// What a change of a pod must change to count: its end, its resources (its generation says so), or its going.
fn facts(pod: &Pod) -> (bool, Option<i64>, bool) {
    (pods::is_terminal(pod), pod.metadata.generation, pods::is_terminating(pod))
}

/// `measured` are the objects by resource, `numbers` how many there are of the others; None for what is not served.
fn reconcile(
    quota: &ResourceQuota,
    measured: &BTreeMap<&'static str, Vec<Value>>,
    numbers: &BTreeMap<String, Option<usize>>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let value = json(quota);
    let mut tally = Tally::new(&value, now);
    for (resource, objects) in measured {
        objects.iter().for_each(|object| tally.add(resource, object));
    }
    for (resource, number) in numbers {
        match number {
            Some(number) => tally.add_number(resource, *number),
            None => {
                tally.forget(resource);
                plan.requeue(UNSERVED);
            }
        }
    }
    // A pod that its kubelet does not let go of stops to count when its time is over.
    let ends = measured.get("pods").into_iter().flatten().filter_map(quota::ends_at).filter(|end| *end >= now).min();
    if let Some(end) = ends {
        plan.requeue(Duration::from_secs((end.as_second() - now.as_second()).max(0) as u64 + 1));
    }
    let mut next = quota.clone();
    next.status = serde_json::from_value(tally.status()).ok();
    if !template::equal(&next.status, &quota.status) {
        plan.push(acts::update_status(&next));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use testkit::model::{World, from};

    fn step(numbers: &[(&str, Option<usize>)]) -> impl Fn(&World) -> Plan {
        let numbers: BTreeMap<String, Option<usize>> = numbers.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
        move |world| {
            let quota = world.get::<ResourceQuota>("ns", "q").expect("there");
            let pods = world.list::<Pod>().iter().map(|p| super::json(p.as_ref())).collect();
            reconcile(&quota, &BTreeMap::from([("pods", pods)]), &numbers, world.now)
        }
    }

    fn used(world: &World) -> Value {
        super::json(&world.get::<ResourceQuota>("ns", "q").expect("there").status)["used"].clone()
    }

    fn world(hard: Value) -> World {
        let mut world = World::default();
        world
            .put(&from::<ResourceQuota>(json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard}})));
        world
    }

    #[test]
    fn pods_count_until_they_end() {
        let mut world = world(json!({"pods": "5", "requests.cpu": "2"}));
        for name in ["a", "b"] {
            world.put(&from::<Pod>(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers":
                [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}})));
        }
        world.settle(step(&[]));
        assert_eq!(used(&world), json!({"pods": "2", "requests.cpu": "1"}));
        world.edit::<Pod>("ns", "a", |pod| pod.status.get_or_insert_default().phase = Some("Failed".into()));
        world.settle(step(&[]));
        assert_eq!(used(&world), json!({"pods": "1", "requests.cpu": "500m"}));
    }

    #[test]
    fn a_kind_that_is_not_served_is_looked_at_again() {
        let mut world = world(json!({"count/widgets.example.com": "5", "secrets": "3"}));
        let numbers = [("widgets.example.com", None), ("secrets", Some(2))];
        world.settle(step(&numbers));
        assert_eq!(used(&world), json!({"secrets": "2"}));
        assert_eq!(step(&numbers)(&world).requeue_after, Some(UNSERVED));
    }

    #[test]
    fn hard_limits_are_taken_over() {
        let mut world = world(json!({"pods": "5"}));
        world.settle(step(&[]));
        world.edit::<ResourceQuota>("ns", "q", |q| {
            let hard = q.spec.get_or_insert_default().hard.get_or_insert_default();
            hard.insert("pods".into(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("7".into()));
        });
        world.settle(step(&[]));
        let quota = world.get::<ResourceQuota>("ns", "q").expect("there");
        assert_eq!(super::json(&quota.status)["hard"], json!({"pods": "7"}));
    }
}
