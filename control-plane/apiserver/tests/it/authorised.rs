//! What is authorised is what is done: no verb does another's work, no name stands for another object.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::world::{Identity, Reply, World, pod};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

async fn apply(world: &World, who: &Identity, path: &str, object: Value) -> Reply {
    let headers = [("content-type", "application/apply-patch+yaml"), ("accept", "application/json")];
    let path = format!("{path}?fieldManager=t&force=true");
    world.send(Some(who), &headers, "PATCH", &path, object.to_string()).await
}

#[tokio::test]
async fn patch_and_update_do_not_create() {
    let world = World::new().await;
    world.account("default").await;
    let rules = json!([rule(&["*"], &["*"], &["patch", "update"])]);
    world.grant("patcher", rules).await;
    let patcher = world.user("patcher", &[]);
    let pods = "/api/v1/namespaces/default/pods";
    let reply = apply(&world, &patcher, &format!("{pods}/byapply"), pod("byapply", json!({}))).await;
    assert_eq!((reply.code, reply.message()), (403, "pods \"byapply\" is forbidden: "));
    let lease = json!({"metadata": {"name": "l"}, "spec": {}});
    let reply = world.by(&patcher, "PUT", &format!("{LEASES}/l"), lease.clone()).await;
    assert_eq!((reply.code, reply.message()), (403, "leases.coordination.k8s.io \"l\" is forbidden: "));
    // Everything that a PUT creates.
    for kind in kinds::ALL.iter().filter(|kind| kind.create_on_update && kind.storage.is_some()) {
        let root = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
        let scope = if kind.namespaced() { "/namespaces/default" } else { "" };
        let path = format!("{root}/{}{scope}/{}/made", kind.version, kind.plural);
        let body = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "made"}});
        let reply = world.by(&patcher, "PUT", &path, body).await;
        assert!(matches!(reply.code, 403 | 422), "{path}: {reply:?}");
        assert_eq!(world.admin("GET", &path, Value::Null).await.code, 404, "{path}");
    }
    world.grant("maker", json!([rule(&["*"], &["*"], &["patch", "update", "create"])])).await;
    let maker = world.user("maker", &[]);
    apply(&world, &maker, &format!("{pods}/byapply"), pod("byapply", json!({}))).await.ok();
    world.by(&maker, "PUT", &format!("{LEASES}/l"), lease).await.ok();
    // What is there is patched as before.
    apply(&world, &patcher, &format!("{LEASES}/l"), json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "labels": {"a": "b"}}}))
        .await
        .ok();
}

/// `carol` has one Secret, by name; another one is there.
async fn named() -> (World, Identity) {
    let world = World::new().await;
    for name in ["allowed", "other"] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"k": name}});
        world.admin("POST", SECRETS, secret).await.ok();
    }
    let verbs = ["get", "list", "watch", "delete", "deletecollection"];
    let mut rule = rule(&[""], &["secrets"], &verbs);
    rule["resourceNames"] = json!(["allowed"]);
    world.grant("carol", json!([rule])).await;
    let carol = world.user("carol", &[]);
    (world, carol)
}

#[tokio::test]
async fn a_right_by_name_reads_nothing_else() {
    let (world, carol) = named().await;
    const MISMATCH: &str = "fieldSelector metadata.name doesn't match requested name";
    let watch = "/api/v1/watch/namespaces/default/secrets";
    let no = |what: &str| {
        format!("User \"carol\" cannot {what} resource \"secrets\" in API group \"\" in the namespace \"default\"")
    };
    let (list, watched) = (no("list"), no("watch"));
    let rows: [(u16, &str, &str); 24] = [
        (200, &format!("{SECRETS}/allowed"), ""),
        (403, &format!("{SECRETS}/other"), ""),
        (200, &format!("{SECRETS}?fieldSelector=metadata.name%3Dallowed"), ""),
        (200, &format!("{SECRETS}?fieldSelector=metadata.name%3D%3Dallowed,type%3DOpaque"), ""),
        (200, &format!("{SECRETS}?fieldSelector=metadata.name%3Dallowed,metadata.name%3Dother"), ""),
        (403, &format!("{SECRETS}?fieldSelector=metadata.name%3Dother,metadata.name%3Dallowed"), ""),
        (403, &format!("{SECRETS}?fieldSelector=metadata.name!%3Dallowed"), &list),
        (403, &format!("{SECRETS}?fieldSelector=type%3Da\\,metadata.name%3Dallowed"), &list),
        (403, &format!("{SECRETS}?fieldSelector=%20metadata.name%3Dallowed"), &list),
        (403, &format!("{SECRETS}?fieldSelector=type%3DOpaque&fieldSelector=metadata.name%3Dallowed"), &list),
        (403, SECRETS, &list),
        (403, "/api/v1/secrets?fieldSelector=metadata.namespace%3Ddefault", ""),
        (200, &format!("{SECRETS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dallowed"), ""),
        (403, &format!("{SECRETS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dother"), ""),
        (403, &format!("{SECRETS}?watch=1&timeoutSeconds=1"), &watched),
        (200, &format!("{watch}/allowed?timeoutSeconds=1"), ""),
        (200, &format!("{watch}/allowed?timeoutSeconds=1&fieldSelector=metadata.name%3Dallowed"), ""),
        (400, &format!("{watch}/allowed?timeoutSeconds=1&fieldSelector=metadata.name%3Dother"), MISMATCH),
        (400, &format!("{watch}/allowed?timeoutSeconds=1&fieldSelector=type%3DOpaque"), MISMATCH),
        (400, &format!("{watch}/allowed?timeoutSeconds=1&fieldSelector=metadata.name!%3Dallowed"), MISMATCH),
        (403, &format!("{watch}/other?timeoutSeconds=1"), ""),
        // In an old path only the path names.
        (403, &format!("{watch}?timeoutSeconds=1&fieldSelector=metadata.name%3Dallowed"), &watched),
        (404, &format!("{SECRETS}//?fieldSelector=metadata.name%3Dallowed"), ""),
        (404, &format!("{SECRETS}/allowed%2Fother"), ""),
    ];
    for (code, path, message) in rows {
        let reply = world.by(&carol, "GET", path, Value::Null).await;
        assert_eq!(reply.code, code, "{path}: {reply:?}");
        assert!(reply.message().contains(message), "{path}: {reply:?}");
        assert!(!reply.body.to_string().contains("b3RoZXI="), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn a_right_by_name_deletes_no_collection() {
    let (world, carol) = named().await;
    // As upstream has it: names are for list and watch.
    let path = format!("{SECRETS}?fieldSelector=metadata.name%3Dallowed");
    assert_eq!(world.by(&carol, "DELETE", &path, Value::Null).await.code, 403);
    world.by(&carol, "DELETE", &format!("{SECRETS}/allowed"), Value::Null).await.ok();
}

/// Only listing (or watching) pods' streams was authorised, and only that is done: nothing, there is no such thing.
#[tokio::test]
async fn a_path_with_holes_serves_no_subresource() {
    let world = World::new().await;
    world.account("default").await;
    world.pod("default", "p", json!({"nodeName": "n1"})).await;
    world.grant("lister", json!([rule(&["*"], &["*", "*/*"], &["list", "watch", "create"])])).await;
    let lister = world.user("lister", &[]);
    for (code, method, path) in [
        (404, "GET", "/api/v1/namespaces/default/pods//log?fieldSelector=metadata.name%3Dp"),
        (404, "GET", "/api/v1/namespaces/default/pods//status?fieldSelector=metadata.name%3Dp"),
        (404, "GET", "/api/v1/watch/namespaces/default/pods/p/log"),
        (404, "GET", "/api/v1/watch/namespaces/default/pods/p/status"),
        (404, "GET", "/api/v1/watch/namespaces//pods"),
        (405, "POST", "/api/v1/watch/namespaces/default/pods"),
        (405, "DELETE", "/api/v1/watch/namespaces/default/pods/p"),
        (403, "GET", "/api/v1/namespaces/default/pods/p/status/more"),
    ] {
        let reply = world.by(&lister, method, path, Value::Null).await;
        assert_eq!(reply.code, code, "{method} {path}: {reply:?}");
    }
    let path = "/api/v1/namespaces/default/pods/p/status/more";
    assert_eq!(world.admin("GET", path, Value::Null).await.code, 404);
}

#[tokio::test]
async fn a_stream_begun_with_get_needs_create() {
    let world = World::new().await;
    world.account("default").await;
    world.admin("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.ok();
    world.pod("default", "p", json!({"nodeName": "n1"})).await;
    let streams = ["pods/exec", "pods/attach", "pods/portforward", "nodes/proxy"];
    world.grant("reader", json!([rule(&[""], &streams, &["get"])])).await;
    let reader = world.user("reader", &[]);
    world.grant("runner", json!([rule(&[""], &streams, &["get", "create"])])).await;
    let runner = world.user("runner", &[]);
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    for stream in ["exec?command=id&stdout=1", "attach?stdout=1", "portforward?ports=80"] {
        let path = format!("/api/v1/namespaces/default/pods/p/{stream}");
        let reply = world.call(Some(&reader), &upgrade, "GET", &path, Value::Null).await;
        assert_eq!((reply.code, reply.message()), (403, "pods \"p\" is forbidden: "), "{path}");
        // The node has no address: that is as far as it goes.
        let reply = world.call(Some(&runner), &upgrade, "GET", &path, Value::Null).await;
        assert_eq!(reply.code, 500, "{path}: {reply:?}");
    }
    let path = "/api/v1/nodes/n1/proxy/exec/default/p/c?command=id";
    let reply = world.call(Some(&reader), &upgrade, "GET", path, Value::Null).await;
    assert_eq!((reply.code, reply.message()), (403, "nodes \"n1\" is forbidden: "));
    assert_eq!(world.call(Some(&reader), &[], "GET", path, Value::Null).await.code, 500);
    assert_eq!(world.call(Some(&runner), &upgrade, "GET", path, Value::Null).await.code, 500);
}

/// A write of the object leaves alone what a subresource guards, and the other way round.
#[tokio::test]
async fn main_and_subresources_do_not_do_each_others_work() {
    let world = World::new().await;
    world.account("default").await;
    world.pod("default", "p", json!({})).await;
    world.admin("POST", CONFIG_MAPS, json!({"metadata": {"name": "c"}})).await.ok();
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let pods = "/api/v1/namespaces/default/pods/p";
    let resources = ["pods", "namespaces", "certificatesigningrequests"];
    world.grant("main", json!([rule(&["*"], &resources, &["get", "update", "patch"])])).await;
    world.grant("status", json!([rule(&["*"], &["*/status"], &["get", "update", "patch"])])).await;
    let (main, status) = (world.user("main", &[]), world.user("status", &[]));
    let done = world.by(&main, "PATCH", pods, json!({"status": {"phase": "Failed"}})).await.ok();
    assert_eq!(done["status"]["phase"], "Pending");
    for spec in [json!({"nodeName": "n1"}), json!({"ephemeralContainers": [{"name": "e", "image": "i"}]})] {
        let reply = world.by(&main, "PATCH", pods, json!({"spec": spec})).await;
        assert_eq!(reply.code, 422, "{reply:?}");
    }
    let done = world
        .by(
            &status,
            "PATCH",
            &format!("{pods}/status"),
            json!({"spec": {"containers": [{"name": "c", "image": "other"}]}}),
        )
        .await;
    assert_eq!(done.ok()["spec"]["containers"][0]["image"], "i");
    for sub in ["ephemeralcontainers", "resize", "binding", "eviction", "exec"] {
        for who in [&main, &status] {
            let method = if matches!(sub, "ephemeralcontainers" | "resize") { "PATCH" } else { "POST" };
            assert_eq!(world.by(who, method, &format!("{pods}/{sub}"), json!({})).await.code, 403, "{sub}");
        }
    }
    let namespace = "/api/v1/namespaces/default";
    let done = world.by(&main, "PATCH", namespace, json!({"spec": {"finalizers": []}})).await.ok();
    assert_eq!(done["spec"]["finalizers"], json!(["kubernetes"]));
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::new(vec![]).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    let request = json!({"metadata": {"name": "r"}, "spec": {
        "request": base64::engine::general_purpose::STANDARD.encode(pem), "signerName": "example.com/s", "usages": ["client auth"]}});
    world.admin("POST", csrs, request).await.ok();
    let approved =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x", "message": "y"}]}});
    for (who, path) in [(&main, format!("{csrs}/r")), (&status, format!("{csrs}/r/status"))] {
        let reply = world.by(who, "PATCH", &path, approved.clone()).await;
        assert!(!reply.body["status"]["conditions"].to_string().contains("Approved"), "{path}: {reply:?}");
        assert_eq!(world.by(who, "PATCH", &format!("{csrs}/r/approval"), approved.clone()).await.code, 403);
    }
}
