//! A cluster gets a second family of addresses: its server is started again with a second range of Services, and its nodes
//! get a second range of pods.

use apiserver::storage::memory::MemoryStore;
use serde_json::{Value, json};

use crate::world::World;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const RANGE: &str = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
const BOTH: &str = "10.43.0.0/16,fd43::/112";

async fn start(store: &MemoryStore, range: &str) -> World {
    World::next(store.clone(), |config| config.service_cluster_ip_range = range.to_owned()).await
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn services_keep_their_family_until_somebody_asks_for_both() {
    let store = MemoryStore::default();
    let world = start(&store, "10.43.0.0/16").await;
    let service = |name: &str, policy: &str| json!({"metadata": {"name": name}, "spec": {"ipFamilyPolicy": policy, "ports": [{"port": 80}]}});
    let both = service("web", "RequireDualStack");
    let refused = world.admin("POST", SERVICES, both).await;
    assert!(refused.message().contains("not configured for dual-stack"), "{refused:?}");
    let before = world.admin("POST", SERVICES, service("web", "SingleStack")).await.ok();
    let either = world.admin("POST", SERVICES, service("either", "PreferDualStack")).await.ok();
    drop(world);

    let world = start(&store, BOTH).await;
    let range = world.admin("GET", RANGE, Value::Null).await.ok();
    assert_eq!(texts(&range["spec"]["cidrs"]).join(","), BOTH);
    for (name, was) in [("web", &before), ("either", &either)] {
        let now = world.admin("GET", &format!("{SERVICES}/{name}"), Value::Null).await.ok();
        assert_eq!((&now["spec"], &now["metadata"]["uid"]), (&was["spec"], &was["metadata"]["uid"]), "{name}");
    }
    let kubernetes = world.admin("GET", &format!("{SERVICES}/kubernetes"), Value::Null).await.ok();
    assert_eq!(texts(&kubernetes["spec"]["clusterIPs"]), ["10.43.0.1"], "as upstream has it");
    for (name, was) in [("web", &before), ("either", &either)] {
        let asked = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
        let now = world.admin("PATCH", &format!("{SERVICES}/{name}"), asked).await.ok();
        let addresses = texts(&now["spec"]["clusterIPs"]);
        assert_eq!((addresses.len(), addresses[0]), (2, was["spec"]["clusterIP"].as_str().unwrap()), "{now}");
        assert!(addresses[1].starts_with("fd43::"), "{now}");
        assert_eq!(texts(&now["spec"]["ipFamilies"]), ["IPv4", "IPv6"]);
        let held = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", addresses[1]);
        let held = world.admin("GET", &held, Value::Null).await.ok();
        assert_eq!(held["spec"]["parentRef"]["name"], name);
    }
    drop(world);

    // One of several servers that nobody has told yet takes nothing back.
    let world = start(&store, "10.43.0.0/16").await;
    let range = world.admin("GET", RANGE, Value::Null).await.ok();
    assert_eq!(texts(&range["spec"]["cidrs"]).join(","), BOTH);
}

#[tokio::test]
async fn a_range_of_services_stays_and_a_second_family_may_come() {
    let world = World::with(|config| config.service_cluster_ip_range = "10.43.0.0/16".to_owned()).await;
    for (cidrs, code) in [
        (json!(["10.44.0.0/16"]), 422),
        (json!(["10.44.0.0/16", "fd43::/112"]), 422),
        (json!(["fd43::/112", "10.43.0.0/16"]), 422),
        (json!(["10.43.0.0/16", "10.44.0.0/16"]), 422),
        (json!(["10.43.0.0/16", "fd43::/112"]), 200),
        (json!(["10.43.0.0/16"]), 422),
        (json!(["10.43.0.0/16", "fd44::/112"]), 422),
    ] {
        let reply = world.admin("PATCH", RANGE, json!({"spec": {"cidrs": cidrs}})).await;
        assert_eq!(reply.code, code, "{cidrs}: {reply:?}");
    }
}

#[tokio::test]
async fn a_node_is_given_a_range_of_the_other_family_and_gives_itself_none() {
    let world = World::new().await;
    let kubelet = world.user("system:node:n1", &["system:nodes"]);
    let (v4, v6) = ("10.42.1.0/24", "fd42:0:0:1::/64");
    let node = json!({"metadata": {"name": "n1"}, "spec": {"podCIDR": v4, "podCIDRs": [v4]}});
    world.admin("POST", "/api/v1/nodes", node).await.ok();
    let own = "/api/v1/nodes/n1";
    let gains = json!({"spec": {"podCIDRs": [v4, v6]}});
    let reply = world.by(&kubelet, "PATCH", own, gains.clone()).await;
    assert_eq!(reply.code, 403);
    assert!(reply.message().ends_with("node \"n1\" is not allowed to modify podCIDRs"), "{reply:?}");
    let other = json!({"spec": {"podCIDR": v6}});
    assert_eq!(world.by(&kubelet, "PATCH", own, other.clone()).await.code, 403, "nor by the field of one range");
    assert_eq!(world.admin("PATCH", own, other).await.code, 422);
    for cidrs in [json!([v6]), json!([v6, v4]), json!([v4, "10.42.2.0/24"])] {
        let reply = world.admin("PATCH", own, json!({"spec": {"podCIDRs": cidrs}})).await;
        assert_eq!(reply.code, 422, "{cidrs}: {reply:?}");
    }
    let given = world.admin("PATCH", own, gains).await.ok();
    assert_eq!(texts(&given["spec"]["podCIDRs"]), [v4, v6]);
    let label = json!({"metadata": {"labels": {"example.com/x": "y"}}});
    world.by(&kubelet, "PATCH", own, label).await.ok();
    assert_eq!(world.admin("PATCH", own, json!({"spec": {"podCIDRs": [v4]}})).await.code, 422);
}
