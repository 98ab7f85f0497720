//! What a kubelet may do: read what its pods need, write what is its own.

use serde_json::{Value, json};

use crate::world::{Identity, World, pod};

async fn world() -> (World, Identity) {
    let world = World::new().await;
    let kubelet = world.user("system:node:n1", &["system:nodes"]);
    for node in ["n1", "n2"] {
        world.admin("POST", "/api/v1/nodes", json!({"metadata": {"name": node}})).await.ok();
    }
    world.account("default").await;
    for secret in ["mine", "theirs"] {
        let body = json!({"metadata": {"name": secret}, "stringData": {"k": "v"}});
        world.admin("POST", "/api/v1/namespaces/default/secrets", body).await.ok();
    }
    let using = |node: &str, secret: &str| json!({"nodeName": node, "volumes": [{"name": "v", "secret": {"secretName": secret}}]});
    world.pod("default", "here", using("n1", "mine")).await;
    world.pod("default", "there", using("n2", "theirs")).await;
    (world, kubelet)
}

async fn code(world: &World, kubelet: &Identity, method: &str, path: &str, body: Value) -> u16 {
    world.by(kubelet, method, path, body).await.code
}

#[tokio::test]
async fn it_reads_what_its_pods_refer_to() {
    let (world, kubelet) = world().await;
    let reply = world.by(&kubelet, "GET", "/api/v1/namespaces/default/secrets/theirs", Value::Null).await;
    assert_eq!(reply.code, 403);
    assert!(reply.message().ends_with("no relationship found between node 'n1' and this object"), "{reply:?}");
    let cases = [
        (200, "/api/v1/namespaces/default/secrets/mine"),
        (200, "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3Dmine"),
        (403, "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3Dtheirs"),
        (403, "/api/v1/namespaces/default/secrets"),
        (200, "/api/v1/namespaces/default/pods/here"),
        (403, "/api/v1/namespaces/default/pods/there"),
        (200, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1"),
        (403, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"),
        (403, "/api/v1/pods"),
        (200, "/api/v1/nodes/n1"),
        (403, "/api/v1/nodes/n2"),
        (403, "/api/v1/nodes"),
        (200, "/api/v1/services"),
    ];
    for (wanted, path) in cases {
        assert_eq!(code(&world, &kubelet, "GET", path, Value::Null).await, wanted, "{path}");
    }
    // The pod gone, the secret is out of reach.
    let now = json!({"gracePeriodSeconds": 0});
    world.admin("DELETE", "/api/v1/namespaces/default/pods/here", now).await.ok();
    assert_eq!(code(&world, &kubelet, "GET", "/api/v1/namespaces/default/secrets/mine", Value::Null).await, 403);
}

#[tokio::test]
async fn it_changes_its_own_node_and_neither_taints_nor_reserved_labels() {
    let (world, kubelet) = world().await;
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let own = "/api/v1/nodes/n1";
    let cases = [
        (200, own, label("topology.kubernetes.io/zone")),
        (200, own, label("example.com/x")),
        (403, own, label("node-role.kubernetes.io/control-plane")),
        (403, own, label("node-restriction.kubernetes.io/x")),
        (403, own, taint),
        (403, "/api/v1/nodes/n2", label("example.com/x")),
        (200, "/api/v1/nodes/n1/status", json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})),
        (403, "/api/v1/nodes/n2/status", json!({"status": {"conditions": []}})),
    ];
    for (wanted, path, body) in cases {
        assert_eq!(code(&world, &kubelet, "PATCH", path, body.clone()).await, wanted, "{path} {body}");
    }
    let reply = world.by(&kubelet, "PATCH", own, label("k8s.io/x")).await;
    assert_eq!(reply.message(), "nodes \"n1\" is forbidden: is not allowed to modify labels: k8s.io/x");
    let other = json!({"metadata": {"name": "n3"}});
    let reply = world.by(&kubelet, "POST", "/api/v1/nodes", other).await;
    assert_eq!(reply.message(), "nodes \"n3\" is forbidden: node \"n1\" is not allowed to modify node \"n3\"");
    let lease = |name: &str| json!({"metadata": {"name": name}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(code(&world, &kubelet, "POST", leases, lease("n2")).await, 403);
    assert_eq!(code(&world, &kubelet, "POST", leases, lease("n1")).await, 201);
}

#[tokio::test]
async fn it_touches_only_pods_bound_to_it() {
    let (world, kubelet) = world().await;
    let pods = "/api/v1/namespaces/default/pods";
    let running = json!({"status": {"phase": "Running"}});
    assert_eq!(code(&world, &kubelet, "PATCH", &format!("{pods}/here/status"), running.clone()).await, 200);
    assert_eq!(code(&world, &kubelet, "PATCH", &format!("{pods}/there/status"), running).await, 403);
    let labels = json!({"metadata": {"labels": {"app": "other"}}});
    let reply = world.by(&kubelet, "PATCH", &format!("{pods}/here/status"), labels).await;
    assert!(reply.message().ends_with("node \"n1\" cannot update labels through pod status"), "{reply:?}");
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    assert_eq!(code(&world, &kubelet, "POST", &format!("{pods}/there/eviction"), eviction("there")).await, 403);
    assert_eq!(code(&world, &kubelet, "DELETE", &format!("{pods}/there"), Value::Null).await, 403);
    let mut thief = pod("thief", json!({"nodeName": "n1", "serviceAccountName": "default"}));
    assert_eq!(code(&world, &kubelet, "POST", pods, thief.clone()).await, 403);
    let node = world.admin("GET", "/api/v1/nodes/n1", Value::Null).await.ok();
    thief["metadata"]["annotations"] =
        json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"});
    thief["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"], "controller": true,
    }]);
    let reply = world.by(&kubelet, "POST", pods, thief.clone()).await;
    assert!(reply.message().ends_with("a mirror pod may not reference service accounts"), "{reply:?}");
    thief["spec"].as_object_mut().unwrap().remove("serviceAccountName");
    let bare = thief.clone();
    thief["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "settings"}}]);
    let reply = world.by(&kubelet, "POST", pods, thief).await;
    assert!(reply.message().ends_with("node \"n1\" can not create pods that reference configmaps"), "{reply:?}");
    let thief = bare;
    world.by(&kubelet, "POST", pods, thief).await.ok();
    assert_eq!(code(&world, &kubelet, "POST", &format!("{pods}/here/eviction"), eviction("here")).await, 201);
}

#[tokio::test]
async fn it_gets_tokens_for_its_pods_and_their_audiences() {
    let (world, kubelet) = world().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let ask = |pod: &Value, audiences: Value| {
        let bound =
            json!({"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]});
        json!({"spec": {"audiences": audiences, "boundObjectRef": bound}})
    };
    let token = json!({"serviceAccountToken": {"path": "t", "audience": "vault"}});
    let volumes = json!([{"name": "t", "projected": {"sources": [token]}}]);
    let here = world.pod("default", "tokens", json!({"nodeName": "n1", "volumes": volumes})).await;
    let there = world.admin("GET", "/api/v1/namespaces/default/pods/there", Value::Null).await.ok();
    let cases = [
        (201, ask(&here, json!([]))),
        (201, ask(&here, json!(["vault"]))),
        (403, ask(&here, json!(["other"]))),
        (403, ask(&here, json!(["vault", "other"]))),
        (403, ask(&there, json!([]))),
        (403, json!({"spec": {"audiences": []}})),
    ];
    for (wanted, body) in cases {
        assert_eq!(code(&world, &kubelet, "POST", path, body.clone()).await, wanted, "{body}");
    }
}
