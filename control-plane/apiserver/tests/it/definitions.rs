//! What many CustomResourceDefinitions cost, counted and not timed: each event the definition that it is about, and no
//! schema before somebody asks for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MANY: u64 = 40;

fn definition(plural: &str, kind: &str, group: &str) -> Value {
    let version = |name: &str, storage: bool| {
        let size = json!({"type": "integer", "default": 3, "description": "how large it is"});
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": size}}}}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Cluster", "names": {"plural": plural, "kind": kind},
            "versions": [version("v1", true), version("v1beta1", false)]}})
}

fn condition(crd: &Value, kind: &str) -> Value {
    let all = crd["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().find(|c| c["type"] == kind).map_or(Value::Null, |c| c["status"].clone())
}

/// Waits until a definition is, or is not, established.
async fn settled(world: &World, name: &str, established: &str) -> Value {
    for _ in 0..200 {
        let crd = world.admin("GET", &format!("{PATH}/{name}"), Value::Null).await.ok();
        if condition(&crd, "Established") == established {
            return crd;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{name} does not come to Established={established}");
}

fn count(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_definition_costs_itself_however_many_there_are() {
    let world = World::new().await;
    for i in 0..MANY {
        let group = format!("g{}.example.com", i % 4);
        world.admin("POST", PATH, definition(&format!("widgets{i}"), &format!("Widget{i}"), &group)).await.ok();
    }
    for i in 0..MANY {
        settled(&world, &format!("widgets{i}.g{}.example.com", i % 4), "True").await;
    }
    let work = &world.core.definitions;
    assert_eq!(count(&work.served), MANY, "each is made into kinds once");
    assert!(count(&work.outlines) <= 2 * MANY, "looked at when it comes and when its status is written");
    assert_eq!((count(&work.compiled), count(&work.published)), (0, 0), "nobody has asked for a schema");

    world.admin("GET", "/apis", Value::Null).await.ok();
    world.admin("GET", "/openapi/v3", Value::Null).await.ok();
    assert_eq!((count(&work.compiled), count(&work.published)), (0, 0), "discovery and the index need none");
    let document = world.admin("GET", "/openapi/v3/apis/g1.example.com/v1", Value::Null).await.ok();
    let widget = &document["components"]["schemas"]["com.example.g1.v1.Widget1"];
    assert_eq!(widget["properties"]["spec"]["properties"]["size"]["description"], "how large it is");
    assert_eq!((count(&work.compiled), count(&work.published)), (0, MANY / 4), "a document reads what it is about");

    let made = json!({"apiVersion": "g1.example.com/v1", "kind": "Widget1", "metadata": {"name": "w"}, "spec": {}});
    let made = world.admin("POST", "/apis/g1.example.com/v1/widgets1", made).await.ok();
    assert_eq!(made["spec"]["size"], 3);
    assert_eq!(count(&work.compiled), 1, "an object needs the schema of its version");

    let again = World::over(world.store.clone()).await;
    let work = &again.core.definitions;
    assert_eq!((count(&work.served), count(&work.outlines)), (MANY, MANY), "a start looks at each once");
    assert_eq!(count(&work.compiled), 1, "that of the one kind that has an object");
}

#[tokio::test]
async fn a_name_that_is_given_back_goes_to_who_waits_for_it() {
    let world = World::new().await;
    world.admin("POST", PATH, definition("widgets", "Widget", "example.com")).await.ok();
    settled(&world, "widgets.example.com", "True").await;
    world.admin("POST", PATH, definition("gadgets", "Widget", "example.com")).await.ok();
    let waiting = settled(&world, "gadgets.example.com", "False").await;
    assert_eq!(condition(&waiting, "NamesAccepted"), "False");
    world.admin("DELETE", &format!("{PATH}/widgets.example.com"), Value::Null).await.ok();
    settled(&world, "gadgets.example.com", "True").await;
    let made = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
    world.admin("POST", "/apis/example.com/v1/gadgets", made).await.ok();
}

#[tokio::test]
async fn a_changed_definition_is_served_as_it_is_now() {
    let world = World::new().await;
    world.admin("POST", PATH, definition("widgets", "Widget", "example.com")).await.ok();
    let mut crd = settled(&world, "widgets.example.com", "True").await;
    let object =
        |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {}});
    let path = "/apis/example.com/v1/widgets";
    assert_eq!(world.admin("POST", path, object("a")).await.ok()["spec"]["size"], 3);
    let size = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"];
    size["default"] = 5.into();
    world.admin("PUT", &format!("{PATH}/widgets.example.com"), crd).await.ok();
    for i in 0..200 {
        if world.admin("POST", path, object(&format!("b{i}"))).await.ok()["spec"]["size"] == 5 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the new default is not seen");
}

#[tokio::test]
async fn a_definition_that_became_stricter_judges_what_changes() {
    let world = World::new().await;
    let schema = |most: i64| {
        let number = json!({"type": "integer", "maximum": most});
        json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": number, "replicas": {"type": "integer"}, "other": {"type": "string"}}},
            "status": {"type": "object", "properties": {"code": number, "replicas": {"type": "integer"}}}}})
    };
    let mut crd = definition("widgets", "Widget", "example.com");
    crd["spec"]["versions"].as_array_mut().expect("versions").truncate(1);
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema(100);
    let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
    crd["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": scale});
    world.admin("POST", PATH, crd).await.ok();
    let mut crd = settled(&world, "widgets.example.com", "True").await;
    let (path, one) = ("/apis/example.com/v1/widgets", "/apis/example.com/v1/widgets/w");
    let object = |name: &str, size: i64| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}});
    world.admin("POST", path, object("w", 50)).await.ok();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema(10);
    world.admin("PUT", &format!("{PATH}/widgets.example.com"), crd).await.ok();
    for i in 0..200 {
        if world.admin("POST", path, object(&format!("new{i}"), 50)).await.code == 422 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    world.admin("PATCH", one, json!({"spec": {"other": "x"}})).await.ok();
    let status = format!("{one}/status");
    world.admin("PATCH", &status, json!({"status": {"code": 5}})).await.ok();
    for (path, change, says) in [
        (
            one,
            json!({"spec": {"size": 51}}),
            "spec.size: Invalid value: 51: spec.size in body should be less than or equal to 10",
        ),
        (
            &status,
            json!({"status": {"code": 11}}),
            "status.code: Invalid value: 11: code in body should be less than or equal to 10",
        ),
        (one, json!({"spec": {"replicas": -1}}), ".spec.replicas: Invalid value: -1: should be a non-negative integer"),
        (
            &status,
            json!({"status": {"replicas": -1}}),
            ".status.replicas: Invalid value: -1: should be a non-negative integer",
        ),
    ] {
        let reply = world.admin("PATCH", path, change).await;
        assert_eq!(reply.code, 422, "{reply:?}");
        assert!(reply.message().ends_with(says), "{}", reply.message());
    }
}
