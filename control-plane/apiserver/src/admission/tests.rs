//! The chain as a client meets it: a whole server over a store in memory.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::authn::UserInfo;
use crate::config::Config;
use crate::http::body::request_body;
use crate::proxy::Tcp;
use crate::server::Server;
use crate::storage::memory::MemoryStore;

async fn server() -> Server {
    let config = Config { authorization_mode: vec!["AlwaysAllow".to_owned()], ..Config::default() };
    let shutdown = CancellationToken::new();
    crate::daemon::assemble(config, Arc::new(MemoryStore::default()), None, Arc::new(Tcp), &shutdown).await.unwrap()
}

async fn send(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let user = Arc::new(UserInfo { name: "admin".to_owned(), ..UserInfo::default() });
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(request_body(Full::new(Bytes::from(body.to_string()))))
        .unwrap();
    let response = server.handle(request, user).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn create(server: &Server, path: &str, body: Value) -> Value {
    let (status, answer) = send(server, "POST", path, &body).await;
    assert_eq!(status, 201, "{answer}");
    // Plugins decide on the caches, which hear of a write a moment later.
    server.core.objects.hub.catch_up().await.unwrap();
    answer
}

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

async fn quota(server: &Server, hard: Value, used: Value) {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let mut stored = create(server, QUOTAS, quota).await;
    stored["status"] = json!({"hard": hard, "used": used});
    let (status, answer) = send(server, "PUT", &format!("{QUOTAS}/q/status"), &stored).await;
    assert_eq!(status, 200, "{answer}");
    server.core.objects.hub.catch_up().await.unwrap();
}

#[tokio::test]
async fn two_requests_never_get_the_same_room() {
    let server = server().await;
    quota(&server, json!({"count/configmaps": "3"}), json!({"count/configmaps": "0"})).await;
    let one = |n: usize| {
        let server = server.clone();
        tokio::spawn(async move {
            let map = json!({"metadata": {"name": format!("c{n}")}});
            send(&server, "POST", "/api/v1/namespaces/default/configmaps", &map).await
        })
    };
    let all: Vec<_> = (0..24).map(one).collect();
    let mut refused = Vec::new();
    for answer in all {
        match answer.await.unwrap() {
            (201, _) => {}
            (403, answer) => refused.push(answer["message"].as_str().unwrap_or_default().to_owned()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused.len(), 21);
    let why = "is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=3, limited: count/configmaps=3";
    assert!(refused.iter().all(|message| message.ends_with(why)), "{}", refused[0]);
    let (_, stored) = send(&server, "GET", &format!("{QUOTAS}/q"), &Value::Null).await;
    assert_eq!(stored["status"]["used"], json!({"count/configmaps": "3"}));
}

#[tokio::test]
async fn a_dry_run_reserves_nothing() {
    let server = server().await;
    quota(&server, json!({"configmaps": "1"}), json!({"configmaps": "0"})).await;
    let map = json!({"metadata": {"name": "c"}});
    create(&server, "/api/v1/namespaces/default/configmaps?dryRun=All", map).await;
    let (_, stored) = send(&server, "GET", &format!("{QUOTAS}/q"), &Value::Null).await;
    assert_eq!(stored["status"]["used"], json!({"configmaps": "0"}));
}

#[tokio::test]
async fn claims_and_nodes_start_as_upstreams_do() {
    let server = server().await;
    let class = json!({"metadata": {"name": "fast", "annotations":
        {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "example.com/p"});
    create(&server, "/apis/storage.k8s.io/v1/storageclasses", class).await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = create(&server, "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let node = create(&server, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    assert_eq!(node["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
}

#[tokio::test]
async fn a_pod_gets_the_limits_of_its_namespace_and_may_not_pass_them() {
    let server = server().await;
    create(&server, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits":
        [{"type": "Container", "default": {"cpu": "1"}, "max": {"cpu": "2"}}]}});
    create(&server, "/api/v1/namespaces/default/limitranges", range).await;
    let pod = |name: &str, resources: Value| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}});
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let filled = create(&server, PODS, pod("a", json!({}))).await;
    assert_eq!(filled["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
    let (status, answer) = send(&server, "POST", PODS, &pod("b", json!({"limits": {"cpu": "3"}}))).await;
    let why = "pods \"b\" is forbidden: maximum cpu usage per Container is 2, but limit is 3";
    assert_eq!((status, answer["message"].as_str()), (403, Some(why)));
}

#[tokio::test]
async fn an_old_version_is_judged_by_the_rules_of_the_stored_one() {
    let server = server().await;
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 0,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let (status, answer) = send(&server, "POST", path, &scaler).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["details"]["causes"][0]["field"], "spec.maxReplicas");
}
