//! Deployments against the model, with replica sets played by their own decision's outline: rolling, recreating,
//! scaling, pausing, history and the progress deadline.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use testkit::model::{World, from};

fn deployment(replicas: i32, strategy: Value) -> Deployment {
    from(json!({
        "metadata": {"name": "web", "namespace": "ns", "annotations": {"team": "a"}},
        "spec": {
            "replicas": replicas,
            "strategy": strategy,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]}
            }
        }
    }))
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn step(world: &World) -> Plan {
    let view = View {
        deployment: world.get::<Deployment>("ns", "web").expect("the deployment"),
        candidates: world.list::<ReplicaSet>(),
        pods: world.list::<Pod>(),
    };
    reconcile(&view, world.now)
}

/// Plays the replica set controller: `ready` of the pods of each set run.
fn play_sets(world: &mut World, ready: impl Fn(&ReplicaSet) -> bool) -> bool {
    let mut moved = false;
    for set in world.list::<ReplicaSet>() {
        let wanted = set.spec.replicas.unwrap_or(0);
        let had = set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0);
        let available = if ready(&set) { wanted } else { had.min(wanted) };
        let status = ReplicaSetStatus {
            replicas: wanted,
            ready_replicas: Some(available),
            available_replicas: Some(available),
            observed_generation: set.metadata.generation,
            ..ReplicaSetStatus::default()
        };
        if set.status.as_ref() != Some(&status) {
            moved = true;
            world.edit::<ReplicaSet>("ns", &set.name_any(), |s| s.status = Some(status));
        }
    }
    moved
}

/// Lets deployment and sets go on until neither moves; `check` sees every state on the way.
fn play(world: &mut World, check: impl Fn(&World)) {
    for _ in 0..60 {
        let rounds = world.settle(step);
        check(world);
        if !play_sets(world, |_| true) && rounds == 0 {
            return;
        }
        check(world);
    }
    panic!("does not end");
}

fn set_image(world: &mut World, image: &str) {
    world.edit::<Deployment>("ns", "web", |d| {
        d.spec.template.spec.get_or_insert_default().containers[0].image = Some(image.into());
    });
}

fn sizes(world: &World) -> Vec<(String, i32)> {
    let mut all: Vec<(String, i32)> = world
        .list::<ReplicaSet>()
        .iter()
        .map(|s| (s.annotations()["deployment.kubernetes.io/revision"].clone(), s.spec.replicas.unwrap()))
        .collect();
    all.sort();
    all
}

fn condition(world: &World, type_: &str) -> (String, String) {
    let status = world.get::<Deployment>("ns", "web").unwrap().status.clone().unwrap();
    let found = status.conditions.unwrap().into_iter().find(|c| c.type_.as_deref() == Some(type_)).expect("condition");
    (found.status.unwrap(), found.reason.unwrap())
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.into(), b.into())
}

#[test]
fn a_first_rollout_makes_one_labelled_set_and_completes() {
    let mut world = World::default();
    world.put(&deployment(3, rolling(json!("25%"), json!("25%"))));
    world.settle(step);
    let set = &world.list::<ReplicaSet>()[0];
    let hash = set.labels()["pod-template-hash"].clone();
    assert_eq!(set.name_any(), format!("web-{hash}"));
    assert_eq!(set.spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], hash);
    assert_eq!(set.annotations()["team"], "a");
    assert_eq!(set.annotations()["deployment.kubernetes.io/desired-replicas"], "3");
    assert_eq!(set.annotations()["deployment.kubernetes.io/max-replicas"], "4");
    assert_eq!(world.events, [format!("ScalingReplicaSet: Scaled up replica set web-{hash} from 0 to 3")]);
    assert_eq!(condition(&world, "Available"), pair("False", "MinimumReplicasUnavailable"));
    play(&mut world, |_| {});
    let deployment = world.get::<Deployment>("ns", "web").unwrap();
    assert_eq!(deployment.annotations()["deployment.kubernetes.io/revision"], "1");
    assert_eq!(deployment.metadata.generation, Some(1), "nobody but the user changes what is wanted");
    assert_eq!(condition(&world, "Available"), pair("True", "MinimumReplicasAvailable"));
    assert_eq!(condition(&world, "Progressing"), pair("True", "NewReplicaSetAvailable"));
    let status = deployment.status.clone().unwrap();
    assert_eq!((status.replicas, status.updated_replicas, status.unavailable_replicas), (Some(3), Some(3), None));
}

#[test]
fn a_rolling_update_keeps_within_surge_and_unavailable() {
    let mut world = World::default();
    world.put(&deployment(10, rolling(json!(3), json!(2))));
    play(&mut world, |_| {});
    set_image(&mut world, "two");
    play(&mut world, |w| {
        let sets = w.list::<ReplicaSet>();
        let total: i32 = sets.iter().map(|s| s.spec.replicas.unwrap()).sum();
        let available: i32 = sets.iter().map(|s| count(s.status.as_ref().and_then(|s| s.available_replicas))).sum();
        assert!(total <= 13, "{total} replicas");
        assert!(available >= 8, "{available} available");
    });
    assert_eq!(sizes(&world), [("1".to_owned(), 0), ("2".to_owned(), 10)]);
}

#[test]
fn a_broken_revision_stops_at_the_slack_and_times_out() {
    let mut world = World::default();
    world.put(&deployment(4, rolling(json!(1), json!(1))));
    play(&mut world, |_| {});
    set_image(&mut world, "broken");
    for _ in 0..20 {
        world.settle(step);
        play_sets(&mut world, |s| s.annotations()["deployment.kubernetes.io/revision"] == "1");
    }
    world.settle(step);
    assert_eq!(sizes(&world), [("1".to_owned(), 3), ("2".to_owned(), 2)]);
    assert_eq!(condition(&world, "Progressing").0, "True");
    let wait = step(&world).requeue_after.expect("looks again at the deadline");
    world.advance(wait.as_secs() as i64 + 1);
    world.settle(step);
    assert_eq!(condition(&world, "Progressing"), pair("False", "ProgressDeadlineExceeded"));
    assert!(step(&world).is_empty());
    set_image(&mut world, "one");
    play(&mut world, |_| {});
    assert_eq!(sizes(&world), [("2".to_owned(), 0), ("3".to_owned(), 4)], "rolled back onto the first set");
    assert_eq!(condition(&world, "Progressing"), pair("True", "NewReplicaSetAvailable"));
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::default();
    world.put(&deployment(2, json!({"type": "Recreate"})));
    play(&mut world, |_| {});
    let old = world.list::<ReplicaSet>()[0].clone();
    let pod: Pod = from(json!({
        "metadata": {"name": "last", "namespace": "ns", "ownerReferences": [owners::owner_reference(old.as_ref())]},
        "spec": {"containers": []}, "status": {"phase": "Running"}
    }));
    world.put(&pod);
    set_image(&mut world, "two");
    play(&mut world, |_| {});
    assert_eq!(sizes(&world), [("1".to_owned(), 0)]);
    world.delete::<Pod>("ns", "last");
    play(&mut world, |_| {});
    assert_eq!(sizes(&world), [("1".to_owned(), 0), ("2".to_owned(), 2)]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    let mut world = World::default();
    world.put(&deployment(10, rolling(json!(3), json!(2))));
    play(&mut world, |_| {});
    set_image(&mut world, "broken");
    for _ in 0..20 {
        world.settle(step);
        play_sets(&mut world, |s| s.annotations()["deployment.kubernetes.io/revision"] == "1");
    }
    world.settle(step);
    assert_eq!(sizes(&world), [("1".to_owned(), 8), ("2".to_owned(), 5)]);
    world.edit::<Deployment>("ns", "web", |d| d.spec.replicas = Some(30));
    let plan = step(&world);
    world.apply(&plan);
    assert_eq!(sizes(&world), [("1".to_owned(), 20), ("2".to_owned(), 13)]);
}

#[test]
fn a_paused_deployment_scales_but_makes_no_revision() {
    let mut world = World::default();
    world.put(&deployment(2, rolling(json!(1), json!(0))));
    play(&mut world, |_| {});
    world.edit::<Deployment>("ns", "web", |d| d.spec.paused = Some(true));
    set_image(&mut world, "two");
    world.edit::<Deployment>("ns", "web", |d| d.spec.replicas = Some(5));
    play(&mut world, |_| {});
    assert_eq!(sizes(&world), [("1".to_owned(), 5)]);
    assert_eq!(condition(&world, "Progressing"), pair("Unknown", "DeploymentPaused"));
    world.edit::<Deployment>("ns", "web", |d| d.spec.paused = None);
    play(&mut world, |_| {});
    assert_eq!(sizes(&world), [("1".to_owned(), 0), ("2".to_owned(), 5)]);
}

#[test]
fn old_revisions_beyond_the_limit_are_deleted() {
    let mut world = World::default();
    world.put(&deployment(1, rolling(json!(1), json!(0))));
    for image in ["a", "b", "c", "d", "e"] {
        set_image(&mut world, image);
        world.advance(1);
        play(&mut world, |_| {});
    }
    let revisions: Vec<String> = sizes(&world).into_iter().map(|(r, _)| r).collect();
    assert_eq!(revisions, ["3", "4", "5"], "the new one and two old ones");
}

#[test]
fn a_taken_name_makes_the_next_hash_another() {
    let mut world = World::default();
    world.put(&deployment(1, rolling(json!(1), json!(0))));
    let plan = step(&world);
    let made = plan.actions().find_map(client::Action::op).expect("a replica set");
    assert_eq!(made.describe(), format!("create replicasets ns/{}", made.target.name));
    let name = made.target.name.clone();
    let stranger: ReplicaSet = from(json!({
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"selector": {"matchLabels": {"app": "other"}}}
    }));
    let stranger = Arc::new(stranger);
    let taken = kube::core::Status::failure("exists", "AlreadyExists").with_code(409);
    let error =
        client::ExecuteError { op: Box::new(made.clone()), source: Box::new(kube::Error::Api(Box::new(taken))) };
    let deployment = world.get::<Deployment>("ns", "web").unwrap();
    let after = after_failure(&deployment, &error, |_| Some(stranger.clone()), world.now);
    world.apply(&after);
    world.settle(step);
    assert_ne!(world.list::<ReplicaSet>()[0].name_any(), name);
}
