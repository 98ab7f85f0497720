//! ReplicaSets against the model: they converge, adopt, let go, delete what costs least, and say what fails.

use std::sync::Arc;

use client::{Action, Op, Plan, Step, Target};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::*;
use testkit::model::{World, from};

fn set(replicas: i32) -> ReplicaSet {
    from(json!({
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        }
    }))
}

fn pod(name: &str, app: &str) -> Pod {
    from(json!({"metadata": {"name": name, "namespace": "ns", "labels": {"app": app}}, "spec": {"containers": []}}))
}

fn step(world: &World) -> Plan {
    let set = world.get::<ReplicaSet>("ns", "web").expect("the set");
    let uid = set.uid().expect("stored");
    let candidates: Vec<Arc<Pod>> = world
        .list::<Pod>()
        .into_iter()
        .filter(|p| owners::controller_of(&p.metadata).is_none_or(|o| o.uid == uid))
        .collect();
    let view = View { set: neutral(&set), candidates, related: Vec::new() };
    plan(&set, replicas::reconcile(&view, set.as_ref(), world.now))
}

fn names(world: &World) -> Vec<String> {
    world.list::<Pod>().iter().map(|p| p.name_any()).collect()
}

#[test]
fn as_many_pods_as_asked_for_and_then_nothing_to_do() {
    let mut world = World::default();
    world.put(&set(5));
    world.settle(step);
    assert_eq!(names(&world).len(), 5);
    let pod = &world.list::<Pod>()[0];
    assert!(pod.name_any().starts_with("web-") && pod.labels()["app"] == "web");
    assert_eq!(world.events[0], format!("SuccessfulCreate: Created pod: {}", pod.name_any()));
    world.run_pods();
    world.settle(step);
    let status = world.get::<ReplicaSet>("ns", "web").unwrap().status.clone().unwrap();
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (5, Some(5), Some(5)));
    assert_eq!(status.observed_generation, Some(1));
    world.edit::<ReplicaSet>("ns", "web", |s| s.spec.replicas = Some(2));
    world.settle(step);
    assert_eq!(names(&world).len(), 2);
    assert!(world.events.last().unwrap().starts_with("SuccessfulDelete: Deleted pod: web-"));
}

#[test]
fn matching_orphans_are_adopted_and_those_that_match_no_more_released() {
    let mut world = World::default();
    world.put(&set(1));
    world.put(&pod("orphan", "web"));
    world.put(&pod("stranger", "db"));
    world.settle(step);
    assert_eq!(names(&world), ["orphan", "stranger"], "the orphan is enough");
    assert!(owners::controller_of(&world.get::<Pod>("ns", "orphan").unwrap().metadata).is_some());
    world.edit::<Pod>("ns", "orphan", |p| {
        p.labels_mut().insert("app".into(), "debug".into());
    });
    world.settle(step);
    assert!(owners::controller_of(&world.get::<Pod>("ns", "orphan").unwrap().metadata).is_none());
    assert_eq!(names(&world).len(), 3, "and replaced");
}

#[test]
fn a_failed_pod_is_replaced_and_left_for_others_to_remove() {
    let mut world = World::default();
    world.put(&set(1));
    world.settle(step);
    let first = names(&world)[0].clone();
    world.set_pod("ns", &first, "Failed", json!([]));
    world.settle(step);
    assert_eq!(names(&world).len(), 2);
}

#[test]
fn pods_that_do_least_are_deleted_first() {
    let mut world = World::default();
    world.put(&set(3));
    world.settle(step);
    world.run_pods();
    let all = names(&world);
    world.set_pod("ns", &all[1], "Running", json!([{"type": "Ready", "status": "False"}]));
    world.edit::<ReplicaSet>("ns", "web", |s| s.spec.replicas = Some(2));
    world.settle(step);
    assert!(!names(&world).contains(&all[1]), "the one that is not ready goes");
    world.edit::<Pod>("ns", &all[0], |p| {
        p.annotations_mut().insert("controller.kubernetes.io/pod-deletion-cost".into(), "10".into());
    });
    world.edit::<ReplicaSet>("ns", "web", |s| s.spec.replicas = Some(1));
    world.settle(step);
    assert_eq!(names(&world), [all[0].clone()], "the dear one stays");
}

#[test]
fn many_pods_start_in_growing_batches() {
    let mut world = World::default();
    world.put(&set(10));
    let plan = step(&world);
    let pods = |step: &Step| step.actions().iter().filter(|a| matches!(a, Action::Recorded { .. })).count();
    let batches: Vec<usize> = plan.steps.iter().map(pods).filter(|n| *n > 0).collect();
    assert_eq!(batches, [1, 2, 4, 3]);
}

#[test]
fn availability_by_time_is_looked_for_when_it_comes() {
    let mut world = World::default();
    let mut set = set(1);
    set.spec.min_ready_seconds = Some(30);
    world.put(&set);
    world.settle(step);
    world.run_pods();
    world.advance(10);
    world.settle(step);
    assert_eq!(step(&world).requeue_after.map(|d| d.as_secs()), Some(20));
    world.advance(20);
    world.settle(step);
    let status = world.get::<ReplicaSet>("ns", "web").unwrap().status.clone().unwrap();
    assert_eq!(status.available_replicas, Some(1));
    assert!(step(&world).is_empty());
}

#[test]
fn a_refused_pod_shows_as_a_condition_until_it_is_made() {
    let mut world = World::default();
    world.put(&set(1));
    let set = world.get::<ReplicaSet>("ns", "web").unwrap();
    let view = View { set: neutral(&set), candidates: Vec::new(), related: Vec::new() };
    let refused = kube::core::Status::failure("pods \"web-\" is forbidden: exceeded quota", "Forbidden").with_code(403);
    let op = Box::new(Op::create(Target::named::<Pod>("ns", ""), json!({})));
    let error = client::ExecuteError { op, source: Box::new(kube::Error::Api(Box::new(refused))) };
    let outcome = replicas::after_failure(&view, &error, world.now);
    world.apply(&write_status(&set, outcome.status.expect("changed")));
    let conditions = |w: &World| w.get::<ReplicaSet>("ns", "web").unwrap().status.clone().unwrap().conditions;
    let condition = &conditions(&world).unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
    assert_eq!(condition.message.as_deref(), Some("pods \"web-\" is forbidden: exceeded quota"));
    world.settle(step);
    assert_eq!(conditions(&world), None);
}
