//! Endpoints against the model: readiness, repacking by port, capacity, and hands off what others made.

use serde_json::{Value, json};

use super::*;
use testkit::model::{World, from};

fn service(spec: Value) -> Service {
    from(json!({"metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b"}}, "spec": spec}))
}

fn pod(n: usize, ready: bool, port: i32) -> Pod {
    from(json!({
        "metadata": {"name": format!("p{n}"), "namespace": "ns"},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {
            "phase": "Running", "podIP": format!("10.1.{}.{}", n / 250, n % 250 + 1),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]
        }
    }))
}

fn web() -> Service {
    service(json!({"clusterIP": "10.0.0.1", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}))
}

fn step(world: &World) -> Plan {
    let service = world.get::<Service>("ns", "web").expect("the service");
    reconcile(&service, &world.list::<Pod>(), world.get::<Endpoints>("ns", "web").as_deref())
}

#[test]
fn ready_and_not_ready_addresses_by_port() {
    let mut world = World::default();
    world.put(&web());
    for pod in [pod(0, true, 8080), pod(1, false, 8080), pod(2, true, 9090)] {
        world.put(&pod);
    }
    world.settle(step);
    let found = world.get::<Endpoints>("ns", "web").unwrap();
    let labels = found.metadata.labels.clone().unwrap();
    assert_eq!(
        (labels["endpoints.kubernetes.io/managed-by"].as_str(), labels["a"].as_str()),
        ("endpoint-controller", "b")
    );
    let subsets = found.subsets.clone().unwrap();
    assert_eq!(subsets.len(), 2);
    let with = |port: i32| subsets.iter().find(|s| s.ports.as_ref().unwrap()[0].port == port).unwrap();
    assert_eq!(with(8080).addresses.as_ref().unwrap()[0].ip, "10.1.0.1");
    assert_eq!(with(8080).not_ready_addresses.as_ref().unwrap()[0].ip, "10.1.0.2");
    assert_eq!(with(9090).addresses.as_ref().unwrap()[0].target_ref.as_ref().unwrap().name.as_deref(), Some("p2"));
}

#[test]
fn publishing_not_ready_addresses_makes_them_ready() {
    let mut world = World::default();
    let mut service = web();
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    world.put(&service);
    world.put(&pod(0, false, 8080));
    world.settle(step);
    let subsets = world.get::<Endpoints>("ns", "web").unwrap().subsets.clone().unwrap();
    assert_eq!((subsets[0].addresses.as_ref().unwrap().len(), subsets[0].not_ready_addresses.clone()), (1, None));
}

#[test]
fn more_than_a_thousand_are_cut_off_and_said_so() {
    let mut world = World::default();
    world.put(&web());
    for n in 0..1001 {
        world.put(&pod(n, n > 0, 8080));
    }
    world.settle(step);
    let found = world.get::<Endpoints>("ns", "web").unwrap();
    assert_eq!(found.metadata.annotations.as_ref().unwrap()["endpoints.kubernetes.io/over-capacity"], "truncated");
    let subset = &found.subsets.as_ref().unwrap()[0];
    assert_eq!((subset.addresses.as_ref().unwrap().len(), subset.not_ready_addresses.clone()), (1000, None));
}

#[test]
fn without_its_service_only_our_own_goes() {
    let mine: Endpoints = from(json!({
        "metadata": {"name": "web", "namespace": "ns", "labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}}
    }));
    assert_eq!(without_service(Some(&mine)).steps.len(), 1);
    assert!(without_service(Some(&Endpoints::default())).is_empty());
}
