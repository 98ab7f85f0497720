//! What says whose addresses and node ports are is put right, whoever broke it.

use std::time::{Duration, Instant};

use apiserver::storage::{Store, Txn};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::world::World;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const PATIENCE: Duration = Duration::from_secs(20);

fn service(name: &str, address: &str, node_port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "NodePort", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": node_port}]},
    })
}

/// Puts an object into the store past the server, as another program may.
async fn put(world: &World, key: &str, value: Value) {
    let txn = Txn::create(Bytes::from(format!("/registry/{key}")), Bytes::from(value.to_string()), 0);
    world.store.txn(txn).await.unwrap();
}

/// Asks until the answer is right.
async fn until(world: &World, path: &str, what: &str, right: impl Fn(u16, &Value) -> bool) {
    let start = Instant::now();
    loop {
        let reply = world.admin("GET", path, Value::Null).await;
        if right(reply.code, &reply.body) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {reply:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for a warning about an object.
async fn told(world: &World, reason: &str, of: &str) {
    until(world, EVENTS, reason, |_, list| {
        let events = list["items"].as_array().into_iter().flatten();
        let mut of_it = events.filter(|event| event["involvedObject"]["name"] == of && event["type"] == "Warning");
        of_it.any(|event| event["reason"] == reason)
    })
    .await;
}

fn names(address: &Value) -> (&str, &str) {
    let parent = &address["spec"]["parentRef"];
    (parent["namespace"].as_str().unwrap_or_default(), parent["name"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn an_address_that_somebody_deletes_is_held_again() {
    let world = World::new().await;
    until(&world, "/readyz/poststarthook/start-service-ip-repair-controllers", "looked through", |code, _| code == 200)
        .await;
    let web = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let web = world.admin("POST", SERVICES, web).await.ok();
    let path = format!("{ADDRESSES}/{}", web["spec"]["clusterIP"].as_str().unwrap());
    let before = world.admin("GET", &path, Value::Null).await.ok();
    world.admin("DELETE", &path, Value::Null).await.ok();
    until(&world, &path, "made again", |code, now| {
        code == 200 && names(now) == ("default", "web") && now["metadata"]["uid"] != before["metadata"]["uid"]
    })
    .await;
    told(&world, "ClusterIPNotAllocated", "web").await;
    let events = world.admin("GET", EVENTS, Value::Null).await.ok();
    let event = events["items"].as_array().unwrap().iter().find(|e| e["reason"] == "ClusterIPNotAllocated").unwrap();
    assert_eq!(event["reportingComponent"], "ipallocator-repair-controller");
    assert_eq!(event["action"], "ClusterIPAllocation");
    // A Service and its address go together: nobody has anything to say about it.
    world.admin("DELETE", &format!("{SERVICES}/web"), Value::Null).await.ok();
    assert_eq!(world.admin("GET", &path, Value::Null).await.code, 404);
}

#[tokio::test]
async fn what_another_program_stored_is_held_and_what_two_have_is_told() {
    let world = World::new().await;
    let address = {
        let first = json!({"metadata": {"name": "first"}, "spec": {"ports": [{"port": 80}]}});
        let first = world.admin("POST", SERVICES, first).await.ok();
        first["spec"]["clusterIP"].as_str().unwrap().to_owned()
    };
    let (head, _) = address.rsplit_once('.').unwrap();
    let other = ["7", "8"].map(|last| format!("{head}.{last}")).into_iter().find(|other| *other != address).unwrap();
    put(&world, "services/specs/default/stored", service("stored", &other, 30100)).await;
    until(&world, &format!("{ADDRESSES}/{other}"), "held", |code, now| code == 200 && names(now).1 == "stored").await;
    told(&world, "ClusterIPNotAllocated", "stored").await;
    told(&world, "PortNotAllocated", "stored").await;
    let late =
        json!({"metadata": {"name": "late"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30100}]}});
    let start = Instant::now();
    loop {
        let dry = world.admin("POST", &format!("{SERVICES}?dryRun=All"), late.clone()).await;
        if dry.code == 422 {
            assert!(dry.message().contains("provided port is already allocated"), "{dry:?}");
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{dry:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    put(&world, "services/specs/default/second", service("second", &address, 30100)).await;
    told(&world, "ClusterIPAlreadyAllocated", "second").await;
    told(&world, "PortAlreadyAllocated", "second").await;
    let held = world.admin("GET", &format!("{ADDRESSES}/{address}"), Value::Null).await.ok();
    assert_eq!(names(&held).1, "first", "who had it keeps it");
    put(&world, "services/specs/default/far", service("far", "192.0.2.1", 80)).await;
    told(&world, "ClusterIPOutOfRange", "far").await;
    told(&world, "PortOutOfRange", "far").await;
    let page = world.admin("GET", "/metrics", Value::Null).await;
    let line = "apiserver_nodeport_repair_port_errors_total{type=\"duplicate\"} 1";
    assert!(page.body.as_str().unwrap_or_default().contains(line), "{page:?}");
}

#[tokio::test]
async fn an_address_that_leaked_is_free_again() {
    let world = World::new().await;
    let first = world.admin("GET", &format!("{SERVICES}/kubernetes"), Value::Null).await.ok();
    let (head, _) = first["spec"]["clusterIP"].as_str().unwrap().rsplit_once('.').unwrap();
    let leaked = |name: &str, parent: Value, by: &str| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": name, "uid": format!("uid-of-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": by}},
            "spec": {"parentRef": parent},
        })
    };
    let gone = json!({"resource": "services", "namespace": "default", "name": "gone"});
    let wrong = json!({"resource": "services", "namespace": "default", "name": "kubernetes"});
    for (last, parent, reason) in [(21, gone.clone(), "IPAddressNotAllocated"), (22, wrong, "IPAddressWrongReference")]
    {
        let name = format!("{head}.{last}");
        put(&world, &format!("ipaddresses/{name}"), leaked(&name, parent, "ipallocator.k8s.io")).await;
        until(&world, &format!("{ADDRESSES}/{name}"), "free", |code, _| code == 404).await;
        told(&world, reason, &name).await;
    }
    let theirs = format!("{head}.23");
    put(&world, &format!("ipaddresses/{theirs}"), leaked(&theirs, gone, "somebody.example.com")).await;
    until(&world, &format!("{ADDRESSES}/{theirs}"), "there", |code, _| code == 200).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.admin("GET", &format!("{ADDRESSES}/{theirs}"), Value::Null).await.code, 200);
}
