//! Slices against the model: ports by name, conditions, hints, full slices and the least writes.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use testkit::model::{World, from};

fn service(spec: Value) -> Service {
    from(json!({
        "metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b", "service.kubernetes.io/headless": "x"}},
        "spec": spec
    }))
}

fn web() -> Service {
    service(json!({
        "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    }))
}

fn pod(n: u32) -> Pod {
    from(json!({
        "metadata": {"name": format!("p{n}"), "namespace": "ns", "labels": {"app": "web"}},
        "spec": {
            "nodeName": "node", "hostname": format!("host{n}"), "subdomain": "web",
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]
        },
        "status": {
            "phase": "Running", "podIP": format!("10.1.{}.{}", n / 250, n % 250 + 1),
            "podIPs": [{"ip": format!("10.1.{}.{}", n / 250, n % 250 + 1)}],
            "conditions": [{"type": "Ready", "status": "True"}]
        }
    }))
}

fn world(service: &Service, pods: u32) -> World {
    let mut world = World::default();
    world.put(service);
    world.put(&from::<Node>(json!({
        "metadata": {"name": "node", "labels": {"topology.kubernetes.io/zone": "z1"}}
    })));
    for n in 0..pods {
        world.put(&pod(n));
    }
    world
}

fn step(world: &World) -> Plan {
    let service = world.get::<Service>("ns", "web").expect("the service");
    let nodes = world.list::<Node>().into_iter().map(|n| (n.name_any(), n)).collect();
    let pods = world.list::<Pod>().into_iter().filter(|p| services::belongs(p, true)).collect();
    reconcile(&View { service: &service, pods, nodes, slices: world.list() }, 100)
}

fn sizes(world: &World) -> Vec<usize> {
    let mut all: Vec<usize> =
        world.list::<EndpointSlice>().iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect();
    all.sort();
    all
}

#[test]
fn an_endpoint_says_all_that_is_known_of_its_pod() {
    let mut world = world(&web(), 1);
    world.settle(step);
    let slice = &world.list::<EndpointSlice>()[0];
    assert!(slice.name_any().starts_with("web-"));
    let labels = slice.labels();
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(labels["a"], "b");
    assert!(!labels.contains_key("service.kubernetes.io/headless"), "not headless, whatever the service says");
    assert_eq!(slice.owner_references()[0].kind, "Service");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("http"), Some(8080)), "the named target port of the pod");
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.addresses, ["10.1.0.1"]);
    assert_eq!(endpoint.hostname.as_deref(), Some("host0"));
    assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("node"), Some("z1")));
    assert_eq!(endpoint.target_ref.as_ref().unwrap().name.as_deref(), Some("p0"));
    let conditions = endpoint.conditions.clone().unwrap();
    assert_eq!((conditions.ready, conditions.serving, conditions.terminating), (Some(true), Some(true), Some(false)));
}

#[test]
fn a_terminating_pod_serves_on_but_is_not_ready() {
    let mut world = world(&web(), 1);
    world.edit::<Pod>("ns", "p0", |p| {
        p.metadata.deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
        p.metadata.finalizers = Some(vec!["held".into()]);
    });
    world.settle(step);
    let conditions = world.list::<EndpointSlice>()[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
    assert_eq!((conditions.ready, conditions.serving, conditions.terminating), (Some(false), Some(true), Some(true)));
}

#[test]
fn slices_hold_a_hundred_and_a_change_writes_one() {
    let mut world = world(&web(), 250);
    world.settle(step);
    assert_eq!(sizes(&world), [50, 100, 100]);
    world.set_pod("ns", "p7", "Running", json!([{"type": "Ready", "status": "False"}]));
    let before = world.writes;
    world.settle(step);
    assert_eq!(world.writes - before, 1, "one pod changed, one slice is written");
    world.delete::<Pod>("ns", "p8");
    world.put(&pod(300));
    let before = world.writes;
    world.settle(step);
    assert_eq!(world.writes - before, 1, "the new one takes the place of the old one");
    assert_eq!(sizes(&world), [50, 100, 100]);
}

#[test]
fn without_pods_one_empty_slice_is_kept() {
    let mut world = world(&web(), 0);
    world.settle(step);
    assert_eq!(sizes(&world), [0]);
    world.put(&pod(1));
    world.settle(step);
    assert_eq!(sizes(&world), [1]);
    world.delete::<Pod>("ns", "p1");
    world.settle(step);
    assert_eq!(sizes(&world), [0]);
}

#[test]
fn pods_with_other_ports_get_slices_of_their_own() {
    let mut world = world(&web(), 1);
    let mut other = pod(1);
    other.spec.as_mut().unwrap().containers[0].ports.as_mut().unwrap()[0].container_port = 9090;
    world.put(&other);
    world.settle(step);
    let mut ports: Vec<_> =
        world.list::<EndpointSlice>().iter().map(|s| s.ports.as_ref().unwrap()[0].port.unwrap()).collect();
    ports.sort();
    assert_eq!(ports, [8080, 9090]);
}

#[test]
fn a_headless_service_without_ports_has_endpoints_too() {
    let mut world = world(&service(json!({"clusterIP": "None", "selector": {"app": "web"}})), 2);
    world.settle(step);
    let slice = &world.list::<EndpointSlice>()[0];
    assert_eq!(slice.labels()["service.kubernetes.io/headless"], "");
    assert_eq!((slice.ports.clone(), slice.endpoints.as_ref().unwrap().len()), (None, 2));
}

#[test]
fn both_families_have_slices_and_a_dropped_one_goes() {
    let mut dual = web();
    dual.spec.as_mut().unwrap().ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
    let mut world = world(&dual, 1);
    world.edit::<Pod>("ns", "p0", |p| {
        p.status.as_mut().unwrap().pod_ips = Some(from(json!([{"ip": "10.1.0.1"}, {"ip": "fd00::1"}])));
    });
    world.settle(step);
    let mut types: Vec<String> = world.list::<EndpointSlice>().iter().map(|s| s.address_type.clone()).collect();
    types.sort();
    assert_eq!(types, ["IPv4", "IPv6"]);
    world.edit::<Service>("ns", "web", |s| s.spec.as_mut().unwrap().ip_families = Some(vec!["IPv4".into()]));
    world.settle(step);
    assert_eq!(world.list::<EndpointSlice>().len(), 1);
}

#[test]
fn traffic_distribution_gives_hints() {
    let mut near = web();
    near.spec.as_mut().unwrap().traffic_distribution = Some("PreferSameNode".into());
    let mut world = world(&near, 1);
    world.settle(step);
    let hints = world.list::<EndpointSlice>()[0].endpoints.as_ref().unwrap()[0].hints.clone().unwrap();
    assert_eq!(hints.for_zones.unwrap()[0].name, "z1");
    assert_eq!(hints.for_nodes.unwrap()[0].name, "node");
}
