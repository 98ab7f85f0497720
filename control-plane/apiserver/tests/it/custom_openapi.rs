//! What upstream's kube-apiserver 1.37 publishes of custom resources, recorded without its words, against what this
//! one publishes.

use serde_json::{Value, json};

use crate::world::World;

const UPSTREAM: &str = include_str!("cases/custom_openapi.json");

/// Without words, and with parameters in order.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, value)| *key != "description" || !value.is_string());
            let mut map: serde_json::Map<_, _> = kept.map(|(key, value)| (key.clone(), plain(value))).collect();
            if let Some(list) = map.get_mut("parameters").and_then(Value::as_array_mut) {
                list.sort_by_key(|p| format!("{}/{}", p["in"], p["name"]));
            }
            map.into()
        }
        Value::Array(list) => list.iter().map(plain).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn custom_resources_are_published_as_upstream_publishes_them() {
    let world = World::new().await;
    let upstream: Value = serde_json::from_str(UPSTREAM).unwrap();
    for definition in upstream["crds"].as_array().unwrap() {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        world.admin("POST", path, definition.clone()).await.ok();
    }
    let index = world.admin("GET", "/openapi/v3", Value::Null).await.ok();
    let listed: Vec<&String> = index["paths"].as_object().unwrap().keys().filter(|p| p.contains("example")).collect();
    assert_eq!(json!(listed), upstream["documents"]);
    for (path, version, at) in
        [("/openapi/v2", "v2", "/definitions"), ("/openapi/v3/apis/x.example.com/v1", "v3", "/components/schemas")]
    {
        let document = world.admin("GET", path, Value::Null).await.ok();
        for (name, want) in upstream[version]["definitions"].as_object().unwrap() {
            assert_eq!(&plain(&document.pointer(at).unwrap()[name]), want, "{version} {name}");
        }
        for (path, want) in upstream[version]["paths"].as_object().unwrap() {
            assert_eq!(plain(&document["paths"][path]), plain(want), "{version} {path}");
        }
    }
    let foo = &world.admin("GET", "/openapi/v2", Value::Null).await.ok()["definitions"]["com.example.x.v1.Foo"];
    let words = foo["properties"]["apiVersion"]["description"].as_str().unwrap();
    assert!(words.starts_with("APIVersion defines"), "kubectl explain has the documentation's words: {words}");
}
