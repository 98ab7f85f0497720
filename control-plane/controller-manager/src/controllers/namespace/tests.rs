//! Namespaces against the model: phases, conditions in upstream's words, and the finalizer off at the end.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::*;
use content::Remaining;
use testkit::model::{World, from};

fn going() -> World {
    let mut world = World::default();
    world.put(&from::<Namespace>(json!({
        "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}
    })));
    world
}

fn step(world: &World, found: &Found) -> Plan {
    let namespace = world.get::<Namespace>("", "a").expect("the namespace");
    begin(&namespace).unwrap_or_else(|| reconcile(&namespace, found, world.now))
}

fn message(world: &World, type_: &str) -> (String, String) {
    let status = world.get::<Namespace>("", "a").unwrap().status.clone().unwrap();
    let found = status.conditions.unwrap().into_iter().find(|c| c.type_ == type_).expect("condition");
    (found.status, found.message.unwrap())
}

#[test]
fn remaining_pods_are_told_and_waited_for() {
    let mut world = going();
    let pods =
        Remaining { plural: "pods".into(), count: 2, grace: Some(Duration::from_secs(30)), ..Remaining::default() };
    let found = Found { remaining: vec![pods], ..Found::default() };
    world.settle(|w| step(w, &found));
    assert_eq!(world.get::<Namespace>("", "a").unwrap().status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
    let told = message(&world, "NamespaceContentRemaining");
    assert_eq!(told, ("True".into(), "Some resources are remaining: pods. has 2 resource instances".into()));
    assert_eq!(step(&world, &found).requeue_after, Some(Duration::from_secs(16)));
}

#[test]
fn finalizers_of_content_are_named() {
    let mut world = going();
    let maps = Remaining {
        plural: "configmaps".into(),
        count: 1,
        finalizers: [("example.com/hold".to_owned(), 1)].into(),
        ..Remaining::default()
    };
    let found = Found { remaining: vec![maps], ..Found::default() };
    world.settle(|w| step(w, &found));
    let told = message(&world, "NamespaceFinalizersRemaining").1;
    assert_eq!(
        told,
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
}

#[test]
fn an_empty_namespace_loses_our_finalizer_and_only_that() {
    let mut world = going();
    world.edit::<Namespace>("", "a", |n| {
        n.spec.get_or_insert_default().finalizers.get_or_insert_default().push("example.com/more".into());
    });
    let found = Found::default();
    world.apply(&step(&world, &found).clone());
    world.apply(&step(&world, &found).clone());
    let finalizers = world.get::<Namespace>("", "a").unwrap().spec.as_ref().unwrap().finalizers.clone();
    assert_eq!(finalizers, Some(vec!["example.com/more".to_owned()]));
    assert_eq!(message(&world, "NamespaceDeletionContentFailure").0, "False");
}
