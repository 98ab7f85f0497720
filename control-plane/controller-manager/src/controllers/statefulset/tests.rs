//! Stateful sets against the model: order, halting on ill pods, parallel, rolling with a partition, storage.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use crate::common::pods;
use testkit::model::{World, from};

fn set(spec: Value) -> StatefulSet {
    let mut value = json!({
        "metadata": {"name": "db", "namespace": "ns"},
        "spec": {
            "replicas": 3, "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]}
            }
        }
    });
    for (name, field) in spec.as_object().unwrap() {
        value["spec"][name] = field.clone();
    }
    from(value)
}

fn world(spec: Value) -> World {
    let mut world = World::default();
    world.put(&set(spec));
    world
}

fn step(world: &World) -> Plan {
    let view = View {
        set: world.get::<StatefulSet>("ns", "db").unwrap(),
        candidates: world.list(),
        revisions: world.list(),
        claims: world.list(),
    };
    reconcile(&view, world.now)
}

fn names(world: &World) -> Vec<String> {
    world.list::<Pod>().iter().map(|p| p.name_any()).collect()
}

fn play(world: &mut World) {
    for _ in 0..40 {
        let rounds = world.settle(step);
        let before = world.writes;
        world.run_pods();
        if rounds == 0 && world.writes == before {
            return;
        }
    }
    panic!("does not end");
}

fn images(world: &World) -> Vec<String> {
    world.list::<Pod>().iter().map(|p| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap()).collect()
}

fn set_image(world: &mut World, image: &str) {
    world.edit::<StatefulSet>("ns", "db", |s| {
        s.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    });
}

#[test]
fn pods_start_one_after_the_other_with_their_names() {
    let mut world = world(json!({}));
    world.settle(step);
    assert_eq!(names(&world), ["db-0"]);
    play(&mut world);
    assert_eq!(names(&world), ["db-0", "db-1", "db-2"]);
    let pod = world.get::<Pod>("ns", "db-1").unwrap();
    let spec = pod.spec.clone().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("db")));
    assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "1");
    assert!(world.events.contains(&"SuccessfulCreate: create Pod db-1 in StatefulSet db successful".to_owned()));
    let status = world.get::<StatefulSet>("ns", "db").unwrap().status.clone().unwrap();
    assert_eq!((status.replicas, status.ready_replicas, status.current_replicas), (3, Some(3), Some(3)));
    assert_eq!(status.current_revision, status.update_revision);
}

#[test]
fn an_ill_pod_halts_scaling_both_ways() {
    let mut world = world(json!({"replicas": 2}));
    play(&mut world);
    world.set_pod("ns", "db-0", "Running", json!([{"type": "Ready", "status": "False"}]));
    world.edit::<StatefulSet>("ns", "db", |s| s.spec.replicas = Some(3));
    world.settle(step);
    assert_eq!(names(&world).len(), 2);
    world.edit::<StatefulSet>("ns", "db", |s| s.spec.replicas = Some(1));
    world.settle(step);
    assert_eq!(names(&world).len(), 2, "db-1 stays while db-0 is ill");
    world.set_pod("ns", "db-0", "Running", json!([{"type": "Ready", "status": "True"}]));
    play(&mut world);
    assert_eq!(names(&world), ["db-0"]);
}

#[test]
fn in_parallel_all_start_at_once() {
    let mut world = world(json!({"podManagementPolicy": "Parallel"}));
    world.settle(step);
    assert_eq!(names(&world).len(), 3);
    world.edit::<StatefulSet>("ns", "db", |s| s.spec.replicas = Some(0));
    world.settle(step);
    assert!(names(&world).is_empty());
}

#[test]
fn a_set_that_wants_two_thousand_million_pods_costs_no_more_than_a_burst() {
    for (policy, pods) in [("Parallel", 500), ("OrderedReady", 1)] {
        let spec = json!({
            "replicas": i32::MAX, "podManagementPolicy": policy, "ordinals": {"start": i32::MAX - 1},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": i32::MAX}},
        });
        let plan = step(&world(spec));
        let made = plan.actions().filter(|a| format!("{a:?}").contains("SuccessfulCreate")).count();
        assert_eq!(made, pods, "{policy}");
    }
}

#[test]
fn scaling_down_waits_for_each_pod_to_be_gone() {
    let mut world = world(json!({}));
    play(&mut world);
    world.graceful = true;
    world.edit::<StatefulSet>("ns", "db", |s| s.spec.replicas = Some(1));
    world.settle(step);
    let going = |w: &World| -> Vec<String> {
        w.list::<Pod>().iter().filter(|p| pods::is_terminating(p)).map(|p| p.name_any()).collect()
    };
    assert_eq!(going(&world), ["db-2"]);
    world.end_pods();
    world.settle(step);
    assert_eq!(going(&world), ["db-1"]);
}

#[test]
fn a_partition_holds_the_lower_ordinals_back() {
    let mut world = world(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}));
    play(&mut world);
    set_image(&mut world, "two");
    play(&mut world);
    assert_eq!(images(&world), ["one", "one", "two"]);
    world.delete::<Pod>("ns", "db-0");
    play(&mut world);
    assert_eq!(images(&world), ["one", "one", "two"], "a lost pod comes back as it was");
    let status = world.get::<StatefulSet>("ns", "db").unwrap().status.clone().unwrap();
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(2), Some(1)));
    assert_ne!(status.current_revision, status.update_revision);
    world.edit::<StatefulSet>("ns", "db", |s| {
        s.spec.update_strategy.as_mut().unwrap().rolling_update.as_mut().unwrap().partition = Some(0);
    });
    play(&mut world);
    assert_eq!(images(&world), ["two", "two", "two"]);
    let status = world.get::<StatefulSet>("ns", "db").unwrap().status.clone().unwrap();
    assert_eq!(status.current_revision, status.update_revision);
}

#[test]
fn an_update_goes_down_from_the_top_and_waits_for_each() {
    let mut world = world(json!({}));
    play(&mut world);
    set_image(&mut world, "two");
    world.settle(step);
    assert_eq!(images(&world), ["one", "one", "two"]);
    world.settle(step);
    assert_eq!(images(&world), ["one", "one", "two"], "db-2 is not ready yet");
    world.run_pods();
    world.settle(step);
    assert_eq!(images(&world), ["one", "two", "two"]);
    set_image(&mut world, "one");
    play(&mut world);
    assert_eq!(images(&world), ["one", "one", "one"]);
    assert_eq!(world.list::<ControllerRevision>().len(), 2, "rolled back onto the first revision");
}

#[test]
fn a_failed_pod_is_made_again_under_its_name() {
    let mut world = world(json!({"replicas": 1}));
    play(&mut world);
    let uid = world.get::<Pod>("ns", "db-0").unwrap().uid();
    world.set_pod("ns", "db-0", "Failed", json!([]));
    play(&mut world);
    assert_ne!(world.get::<Pod>("ns", "db-0").unwrap().uid(), uid);
    assert!(world.events.contains(&"RecreatingFailedPod: StatefulSet ns/db is recreating failed Pod db-0".to_owned()));
}

#[test]
fn every_pod_has_its_claims_which_stay_unless_told_otherwise() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let mut world = world(json!({
        "replicas": 2, "volumeClaimTemplates": claims,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}
    }));
    play(&mut world);
    let all: Vec<String> = world.list::<PersistentVolumeClaim>().iter().map(|c| c.name_any()).collect();
    assert_eq!(all, ["data-db-0", "data-db-1"]);
    let pod = world.get::<Pod>("ns", "db-1").unwrap();
    let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
    assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-1");
    world.edit::<StatefulSet>("ns", "db", |s| s.spec.replicas = Some(1));
    play(&mut world);
    let claim = world.get::<PersistentVolumeClaim>("ns", "data-db-1").unwrap();
    assert_eq!(claim.owner_references()[0].name, "db-1", "goes with the pod that was scaled away");
    assert!(world.get::<PersistentVolumeClaim>("ns", "data-db-0").unwrap().owner_references().is_empty());
}

#[test]
fn ordinals_may_start_elsewhere() {
    let mut world = world(json!({"replicas": 2, "ordinals": {"start": 5}}));
    play(&mut world);
    assert_eq!(names(&world), ["db-5", "db-6"]);
}
