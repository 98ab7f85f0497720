//! Between the versions of a resource stands a converter that may fail and may wait. What requests in the version that is
//! not stored make of it, with one that the test holds in its hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apiserver::registry::convert::{Conversion, Converter, Converting};
use apiserver::registry::{Registry, Served};
use kinds::KindRef;
use meta::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::world::{Reply, World};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/widgets";
const BETA: &str = "/apis/example.com/v1beta1/widgets";
/// Whoever has this mark can't be shown in v1beta1.
const BAD: &str = "bad";
const WHY: &str = "conversion webhook for example.com/v1, Kind=Widget failed: no route to host";

/// What v1 calls `size`, v1beta1 calls `length`.
struct Fake {
    /// Of how many objects each call was.
    calls: Mutex<Vec<usize>>,
    /// Calls wait until `gate` has a place for them.
    waits: AtomicBool,
    gate: Semaphore,
}

impl Fake {
    fn new() -> Arc<Fake> {
        Arc::new(Fake { calls: Mutex::default(), waits: AtomicBool::new(false), gate: Semaphore::new(0) })
    }

    fn calls(&self) -> Vec<usize> {
        std::mem::take(&mut *self.calls.lock())
    }
}

impl Converter for Fake {
    fn convert<'a>(&'a self, mut objects: Vec<Value>, to: &'a KindRef) -> Converting<'a> {
        Box::pin(async move {
            self.calls.lock().push(objects.len());
            if self.waits.load(Ordering::SeqCst) {
                self.gate.acquire().await.unwrap().forget();
            }
            let beta = to.version == "v1beta1";
            for object in &mut objects {
                let marks = object["spec"]["marks"].as_array().into_iter().flatten();
                if beta && marks.into_iter().any(|mark| mark == BAD) {
                    return Err(Status::internal(WHY));
                }
                object["apiVersion"] = to.api_version().into();
                let (from, into) = if beta { ("size", "length") } else { ("length", "size") };
                if let Some(spec) = object["spec"].as_object_mut()
                    && let Some(value) = spec.remove(from)
                {
                    spec.insert(into.to_owned(), value);
                }
            }
            Ok(objects)
        })
    }
}

fn version(name: &str, field: &str) -> Value {
    let marks = json!({"type": "array", "items": {"type": "string"}});
    let mut fields = json!({"marks": marks});
    fields[field] = json!({"type": "integer"});
    json!({"name": name, "served": true, "storage": name == "v1", "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": fields},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
}

/// A server with widgets, and what converts them.
async fn world() -> (World, Arc<Fake>) {
    let world = World::new().await;
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version("v1", "size"), version("v1beta1", "length")]}});
    world.admin("POST", DEFINITIONS, crd).await.ok();
    for _ in 0..200 {
        if world.admin("GET", BETA, Value::Null).await.code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let fake = Fake::new();
    world.core.objects.registry.rcu(|registry| {
        let mut new = Registry::clone(registry);
        new.remove_custom("example.com", "widgets");
        for served in registry.of_group("example.com") {
            new.insert(Served {
                kind: served.kind.clone(),
                store: served.store.clone(),
                custom: true,
                message: None,
                generation: served.generation,
                terminating: false,
                deprecation: None,
                source: served.source.clone(),
                conversion: Some(Conversion::new(fake.clone(), &registry.conversions)),
            });
        }
        new
    });
    (world, fake)
}

fn widget(version: &str, name: &str, spec: Value) -> Value {
    let version = format!("example.com/{version}");
    json!({"apiVersion": version, "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

async fn make(world: &World, name: &str, size: i64) -> Value {
    world.admin("POST", V1, widget("v1", name, json!({"size": size}))).await.ok()
}

/// Type, name and spec of each event of a watch that ends by itself.
fn events(reply: &Reply) -> Vec<(String, Value, Value)> {
    let text = match &reply.body {
        Value::String(text) => text.clone(),
        one => one.to_string(),
    };
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let seen = |event: Value| {
        let object = &event["object"];
        let kind = event["type"].as_str().unwrap().to_owned();
        (kind, object["metadata"]["name"].clone(), object["spec"].clone())
    };
    events.map(seen).collect()
}

#[tokio::test]
async fn a_list_is_one_call_and_what_is_known_is_none() {
    let (world, fake) = world().await;
    for (name, size) in [("a", 1), ("b", 2), ("c", 3)] {
        make(&world, name, size).await;
    }
    assert!(fake.calls().is_empty(), "what is written as it is stored needs nobody");
    let list = world.admin("GET", BETA, Value::Null).await.ok();
    let lengths: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["spec"]["length"].clone()).collect();
    assert_eq!(lengths, [1, 2, 3]);
    assert_eq!(list["items"][0]["apiVersion"], "example.com/v1beta1");
    assert!(list["items"][0]["metadata"]["resourceVersion"].is_string());
    assert_eq!(fake.calls(), [3]);
    let page = world.admin("GET", &format!("{BETA}?limit=2"), Value::Null).await.ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(world.admin("GET", &format!("{BETA}/c"), Value::Null).await.ok()["spec"]["length"], 3);
    assert!(fake.calls().is_empty(), "these were converted already");
    let patch = json!({"spec": {"size": 9}});
    world.admin("PATCH", &format!("{V1}/b"), patch).await.ok();
    assert_eq!(world.admin("GET", BETA, Value::Null).await.ok()["items"][1]["spec"]["length"], 9);
    assert_eq!(fake.calls(), [1], "the one that changed");
}

#[tokio::test]
async fn every_write_goes_through_it() {
    let (world, fake) = world().await;
    let made = world.admin("POST", BETA, widget("v1beta1", "a", json!({"length": 1}))).await.ok();
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v1beta1"), &json!({"length": 1})));
    assert_eq!(fake.calls(), [1, 1], "in, and out again");
    let at = |version: &str| format!("{version}/a");
    let stored = async || world.admin("GET", &at(V1), Value::Null).await.ok()["spec"].clone();
    assert_eq!(stored().await, json!({"size": 1}));
    let mut whole = made.clone();
    whole["spec"]["length"] = 2.into();
    assert_eq!(world.admin("PUT", &at(BETA), whole).await.ok()["spec"], json!({"length": 2}));
    assert_eq!(stored().await, json!({"size": 2}));
    let patched = world.admin("PATCH", &at(BETA), json!({"spec": {"length": 3}})).await.ok();
    assert_eq!((patched["spec"].clone(), stored().await), (json!({"length": 3}), json!({"size": 3})));
    let intent = widget("v1beta1", "a", json!({"length": 4})).to_string();
    let headers = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{}?fieldManager=me&force=true", at(BETA));
    let applied = world.admin_sends(&headers, "PATCH", &path, intent).await.ok();
    assert_eq!((applied["spec"].clone(), stored().await), (json!({"length": 4}), json!({"size": 4})));
    let status = json!({"status": {"is": "new"}});
    let shown = world.admin("PATCH", &format!("{}/status", at(BETA)), status).await.ok();
    assert_eq!((&shown["spec"], &shown["status"]), (&json!({"length": 4}), &json!({"is": "new"})));
    let tried = widget("v1beta1", "dry", json!({"length": 5}));
    assert_eq!(world.admin("POST", &format!("{BETA}?dryRun=All"), tried).await.ok()["spec"], json!({"length": 5}));
    let gone = world.admin("DELETE", BETA, Value::Null).await.ok();
    assert_eq!(gone["items"][0]["spec"], json!({"length": 4}));
    assert_eq!(world.admin("GET", &at(BETA), Value::Null).await.code, 404);
}

#[tokio::test]
async fn an_object_that_can_not_be_converted_fails_what_would_show_it() {
    let (world, _fake) = world().await;
    make(&world, "a", 1).await;
    world.admin("POST", V1, widget("v1", "b", json!({"size": 2, "marks": [BAD]}))).await.ok();
    let refused = |reply: Reply| {
        assert_eq!((reply.code, &reply.body["reason"]), (500, &json!("InternalError")), "{reply:?}");
        assert!(reply.message().contains(WHY), "{reply:?}");
    };
    refused(world.admin("GET", BETA, Value::Null).await);
    refused(world.admin("GET", &format!("{BETA}/b"), Value::Null).await);
    refused(world.admin("PATCH", &format!("{BETA}/b"), json!({"spec": {"length": 3}})).await);
    refused(world.admin("DELETE", &format!("{BETA}/b"), Value::Null).await);
    refused(world.admin("DELETE", BETA, Value::Null).await);
    assert_eq!(world.admin("GET", &format!("{BETA}/a"), Value::Null).await.ok()["spec"]["length"], 1, "still there");
    let list = world.admin("GET", V1, Value::Null).await.ok();
    assert_eq!(list["items"][1]["spec"]["size"], 2, "what is stored needs no conversion");

    let watch = world.admin("GET", &format!("{BETA}?watch=1&timeoutSeconds=30"), Value::Null).await;
    let seen = events(&watch);
    assert_eq!(seen.len(), 1, "an error is the last that is heard: {seen:?}");
    assert_eq!(seen[0].0, "ERROR");
    assert!(watch.body.to_string().contains(WHY), "{:?}", watch.body);
}

/// The write has happened when its answer can't be shown, and is not made again.
#[tokio::test]
async fn a_write_that_can_not_be_shown_is_made_once() {
    let (world, _fake) = world().await;
    world.admin("POST", V1, widget("v1", "a", json!({"size": 1, "marks": ["good"]}))).await.ok();
    let patch = json!([{"op": "add", "path": "/spec/marks/-", "value": BAD}]).to_string();
    let headers = [("content-type", "application/json-patch+json")];
    let reply = world.admin_sends(&headers, "PATCH", &format!("{BETA}/a"), patch).await;
    assert_eq!(reply.code, 500, "{reply:?}");
    let stored = world.admin("GET", &format!("{V1}/a"), Value::Null).await.ok();
    assert_eq!(stored["spec"]["marks"], json!(["good", BAD]));
}

#[tokio::test]
async fn nobody_else_waits_for_it() {
    let (world, fake) = world().await;
    make(&world, "a", 1).await;
    fake.waits.store(true, Ordering::SeqCst);
    let list = async { world.admin("GET", BETA, Value::Null).await.ok() };
    let others = async {
        while fake.calls.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        make(&world, "b", 2).await;
        world.admin("PATCH", &format!("{V1}/a"), json!({"spec": {"size": 3}})).await.ok();
        let all = world.admin("GET", V1, Value::Null).await.ok();
        assert_eq!(all["items"].as_array().unwrap().len(), 2);
        fake.gate.add_permits(1);
    };
    let (list, ()) = tokio::join!(list, others);
    assert_eq!(list["items"][0]["spec"]["length"], 1, "as it was when it was asked for");
}

#[tokio::test]
async fn watchers_share_what_was_converted_and_keep_their_order() {
    let (world, fake) = world().await;
    for name in ["a", "b"] {
        make(&world, name, 1).await;
    }
    let path = format!("{BETA}?watch=1&timeoutSeconds=3&labelSelector=gone%21%3Dyes");
    let watch = async || world.admin("GET", &path, Value::Null).await;
    let writes = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        world.admin("PATCH", &format!("{V1}/a"), json!({"spec": {"size": 2}})).await.ok();
        world.admin("PATCH", &format!("{V1}/a"), json!({"metadata": {"labels": {"gone": "yes"}}})).await.ok();
        make(&world, "c", 3).await;
        world.admin("DELETE", &format!("{V1}/b"), Value::Null).await.ok();
    };
    let (one, two, ()) = tokio::join!(watch(), watch(), writes);
    let event = |kind: &str, name: &str, length: i64| (kind.to_owned(), json!(name), json!({"length": length}));
    let wanted = [
        event("ADDED", "a", 1),
        event("ADDED", "b", 1),
        event("MODIFIED", "a", 2),
        event("DELETED", "a", 2),
        event("ADDED", "c", 3),
        event("DELETED", "b", 1),
    ];
    assert_eq!(events(&one), wanted);
    assert_eq!(events(&two), wanted);
    let converted: usize = fake.calls().iter().sum();
    assert!(converted <= 2 * 2 + 2, "the pages of the beginning, and once what came then: {converted}");
    let last = one.body.as_str().unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let revisions: Vec<i64> =
        last.map(|e| e["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()).collect();
    assert!(revisions[2..].is_sorted(), "a deletion is at its own revision: {revisions:?}");
    assert!(revisions[5] > revisions[4] && revisions[3] > revisions[2]);
}
