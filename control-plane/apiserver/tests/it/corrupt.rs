//! Stored objects that can't be read: told, left out, never in the way, and removable.

use apiserver::storage::{RangeRequest, Store, Txn, keys};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::world::{Reply, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const OPTION: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

/// Puts bytes into the store past the server.
async fn put(world: &World, key: &str, value: impl Into<Bytes>) {
    let key = Bytes::from(key.to_owned());
    let (_, now) = world.store.get(key.clone()).await.unwrap();
    let txn = Txn::update(key, value.into(), now.map_or(0, |kv| kv.mod_revision), 0);
    world.store.txn(txn).await.unwrap();
}

async fn map(world: &World, name: &str) {
    world.admin("POST", MAPS, json!({"metadata": {"name": name}, "data": {"a": "b"}})).await.ok();
}

fn key(name: &str) -> String {
    format!("/registry/configmaps/default/{name}")
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn delete(world: &World, name: &str, options: Value) -> Reply {
    world.admin("DELETE", &format!("{MAPS}/{name}"), options).await
}

#[tokio::test]
async fn an_unreadable_object_is_an_error_and_keeps_no_list_away() {
    let world = World::new().await;
    for name in ["good", "torn", "typed"] {
        map(&world, name).await;
    }
    put(&world, &key("torn"), &b"{\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"to"[..]).await;
    put(&world, &key("typed"), r#"{"kind":"ConfigMap","metadata":{"name":"typed"},"data":{"password":["hunter2"]}}"#)
        .await;
    let list = world.admin("GET", MAPS, Value::Null).await;
    assert_eq!(names(&list.body), ["good"]);
    assert_eq!(list.warnings, ["\"2 stored configmaps can't be read and are left out: default/torn, default/typed\""]);
    let elsewhere = world.admin("GET", "/api/v1/namespaces/kube-system/configmaps", Value::Null).await;
    assert!(elsewhere.warnings.is_empty(), "{elsewhere:?}");
    for name in ["torn", "typed"] {
        let path = format!("{MAPS}/{name}");
        let start = format!(
            "Internal error occurred: StorageError: corrupt object, Code: 7, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: object not decodable revision=",
            key(name)
        );
        let body = json!({"metadata": {"name": name}});
        for (method, body) in [("GET", Value::Null), ("PUT", body.clone()), ("PATCH", body), ("DELETE", Value::Null)] {
            let reply = world.admin(method, &path, body).await;
            assert_eq!((reply.code, &reply.body["reason"]), (500, &json!("InternalError")), "{method} {reply:?}");
            assert!(reply.message().starts_with(&start), "{}", reply.message());
            assert!(!reply.message().contains("hunter2"));
        }
        let again = world.admin("POST", MAPS, json!({"metadata": {"name": name}})).await;
        assert_eq!((again.code, &again.body["reason"]), (409, &json!("AlreadyExists")));
    }
    let metrics = world.admin("GET", "/metrics", Value::Null).await.body;
    let counted = "apiserver_storage_decode_errors_total{group=\"\",resource=\"configmaps\"}";
    let line = metrics.as_str().unwrap().lines().find(|line| line.starts_with(counted)).unwrap();
    assert_ne!(line.rsplit(' ').next(), Some("0"));
}

#[tokio::test]
async fn who_may_removes_what_can_not_be_read() {
    let world = World::new().await;
    let verbs = |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]);
    world.grant("deletes", verbs(&["delete"])).await;
    world.grant("removes", verbs(&["delete", "unsafe-delete-ignore-read-errors"])).await;
    map(&world, "good").await;
    map(&world, "torn").await;
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    world.admin("PATCH", &format!("{MAPS}/torn"), held).await.ok();
    put(&world, &key("torn"), "{").await;
    let (path, option) = (format!("{MAPS}/torn"), json!({OPTION: true}));
    let refused = world.by(&world.user("deletes", &[]), "DELETE", &path, option.clone()).await;
    assert_eq!(refused.code, 403);
    let want = "configmaps \"torn\" is forbidden: not permitted to do \"unsafe-delete-ignore-read-errors\", reason: ";
    assert!(refused.message().starts_with(want), "{}", refused.message());
    let readable = delete(&world, "good", option.clone()).await;
    assert_eq!(readable.code, 422);
    assert_eq!(
        readable.message(),
        format!(
            "configmaps \"good\" is invalid: {OPTION}: Invalid value: true: is exclusively used to delete corrupt object(s), try again by removing this option"
        )
    );
    let removed = world.by(&world.user("removes", &[]), "DELETE", &path, option.clone()).await;
    assert_eq!((removed.code, &removed.body["status"]), (200, &json!("Success")), "{removed:?}");
    assert_eq!(removed.body["details"], json!({"kind": "ConfigMap"}));
    assert_eq!(world.admin("GET", &path, Value::Null).await.code, 404);
    assert_eq!(delete(&world, "torn", option).await.code, 404);
    let list = world.admin("GET", MAPS, Value::Null).await;
    assert!(list.warnings.is_empty(), "{list:?}");
    map(&world, "torn").await;
}

#[tokio::test]
async fn the_removal_stands_alone_among_the_options() {
    let world = World::new().await;
    for (other, value) in [
        ("dryRun", json!(["All"])),
        ("propagationPolicy", json!("Background")),
        ("orphanDependents", json!(true)),
        ("gracePeriodSeconds", json!(0)),
        ("preconditions", json!({"uid": "x"})),
    ] {
        let reply = delete(&world, "any", json!({OPTION: true, other: value})).await;
        assert_eq!(reply.code, 422, "{other}: {reply:?}");
        let want = format!(
            "DeleteOptions.meta.k8s.io \"\" is invalid: {OPTION}: Invalid value: true: cannot be set together with .{other}"
        );
        assert_eq!(reply.message(), want);
    }
    for body in [json!({OPTION: true}), Value::Null] {
        let query = if body.is_null() { format!("?{OPTION}=true") } else { String::new() };
        let reply = world.admin("DELETE", &format!("{MAPS}{query}"), body).await;
        assert_eq!(reply.code, 422, "{reply:?}");
        assert!(reply.message().ends_with("is not allowed with DELETECOLLECTION, try again after removing the option"));
    }
    assert_eq!(world.admin("DELETE", &format!("{MAPS}/any?{OPTION}=true"), Value::Null).await.code, 404);
}

#[tokio::test]
async fn a_server_starts_over_a_store_in_which_nothing_can_be_read() {
    let world = World::new().await;
    map(&world, "mine").await;
    let (store, root) = (world.store.clone(), Bytes::from_static(b"/registry/"));
    drop(world);
    let range = RangeRequest { end: keys::prefix_end(&root), key: root, ..RangeRequest::default() };
    let all = store.range(range).await.unwrap().kvs;
    assert!(all.len() > 50, "what the server itself keeps");
    for (n, kv) in all.into_iter().enumerate() {
        let values: [&[u8]; 4] = [b"{", b"\xff\xfe", b"null", b"{\"metadata\":{\"name\":5}}"];
        let txn = Txn::update(kv.key, Bytes::from_static(values[n % values.len()]), kv.mod_revision, 0);
        store.txn(txn).await.unwrap();
    }
    let world = World::over(store).await;
    let list = world.admin("GET", MAPS, Value::Null).await;
    assert_eq!(list.warnings.len(), 1, "{list:?}");
    world.admin("POST", "/api/v1/namespaces", json!({"metadata": {"name": "fresh"}})).await.ok();
    world.admin("GET", "/readyz", Value::Null).await.ok();
}
