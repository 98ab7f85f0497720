//! Endpoints written by hand against the model: what their slices say, when there are none, and the least writes.

use serde_json::{Value, json};

use super::*;
use testkit::model::{World, from};

fn endpoints() -> Endpoints {
    from(json!({
        "metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b"}, "annotations": {
            "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z", "kept": "yes"}},
        "subsets": [
            {"addresses": [{"ip": "10.1.0.1", "hostname": "one", "nodeName": "n"}, {"ip": "fd00::1"}],
             "notReadyAddresses": [{"ip": "10.1.0.2"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
            {"addresses": [{"ip": "10.1.0.3"}], "ports": [{"name": "http", "port": 81, "protocol": "TCP"}]},
        ],
    }))
}

fn world(service: Value) -> World {
    let mut world = World::default();
    world.put(&from::<Service>(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": service})));
    world.put(&endpoints());
    world
}

fn step(world: &World) -> Plan {
    let (service, endpoints) = (world.get::<Service>("ns", "web"), world.get::<Endpoints>("ns", "web"));
    reconcile(service.as_deref(), endpoints.as_deref(), &world.list(), 1000)
}

/// Family, ports and ready addresses of each slice.
fn shown(world: &World) -> Vec<String> {
    let one = |slice: &Arc<EndpointSlice>| {
        let ports: Vec<String> = slice.ports.iter().flatten().map(|p| p.port.unwrap_or_default().to_string()).collect();
        let address = |e: &Endpoint| {
            let ready = e.conditions.as_ref().and_then(|c| c.ready).unwrap_or_default();
            format!("{}{}", if ready { "" } else { "!" }, e.addresses[0])
        };
        let addresses: Vec<String> = slice.endpoints.iter().flatten().map(address).collect();
        format!("{} {} {}", slice.address_type, ports.join(","), addresses.join(","))
    };
    let mut all: Vec<String> = world.list::<EndpointSlice>().iter().map(one).collect();
    all.sort();
    all
}

#[test]
fn slices_say_what_the_endpoints_say() {
    let mut world = world(json!({"clusterIP": "10.0.0.1"}));
    world.settle(step);
    assert_eq!(shown(&world), ["IPv4 80 10.1.0.1,!10.1.0.2", "IPv4 81 10.1.0.3", "IPv6 80 fd00::1"]);
    let slices = world.list::<EndpointSlice>();
    let slice = slices.iter().find(|s| s.endpoints.as_ref().is_some_and(|e| e.len() == 2)).expect("the first subset");
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels[MANAGED_BY], CONTROLLER);
    assert_eq!(labels["a"], "b");
    assert_eq!(slice.metadata.annotations.as_ref().unwrap().keys().collect::<Vec<_>>(), ["kept"]);
    assert_eq!(slice.metadata.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
    let first = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!((first.hostname.as_deref(), first.node_name.as_deref()), (Some("one"), Some("n")));
}

#[test]
fn a_change_writes_what_changed() {
    let mut world = world(json!({"clusterIP": "None"}));
    world.settle(step);
    world.edit::<Endpoints>("ns", "web", |e| e.subsets.as_mut().unwrap()[1].addresses = None);
    world.edit::<Endpoints>("ns", "web", |e| {
        e.subsets.as_mut().unwrap()[0].addresses.as_mut().unwrap()[0].ip = "10.1.0.9".into();
    });
    let before = world.writes;
    world.settle(step);
    assert_eq!(shown(&world), ["IPv4 80 10.1.0.9,!10.1.0.2", "IPv6 80 fd00::1"]);
    assert_eq!(world.writes - before, 2, "one slice written, one removed");
}

#[test]
fn only_endpoints_without_another_author_are_mirrored() {
    let edits: [fn(&mut World); 5] = [
        |w| w.edit::<Service>("ns", "web", |s| s.spec.as_mut().unwrap().selector = Some(from(json!({"a": "b"})))),
        |w| w.edit::<Endpoints>("ns", "web", |e| e.metadata.labels = Some(from(json!({SKIP: "true"})))),
        |w| w.edit::<Endpoints>("ns", "web", |e| e.metadata.annotations = Some(from(json!({LEADER: "{}"})))),
        |w| w.delete::<Service>("ns", "web"),
        |w| w.delete::<Endpoints>("ns", "web"),
    ];
    for edit in edits {
        let mut world = world(json!({"clusterIP": "10.0.0.1"}));
        world.settle(step);
        assert_eq!(shown(&world).len(), 3);
        edit(&mut world);
        world.settle(step);
        assert!(shown(&world).is_empty());
    }
}
