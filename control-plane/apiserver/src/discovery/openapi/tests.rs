//! The OpenAPI documents against what upstream publishes, recorded without prose.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::{v2, v3};
use crate::cache::hub::Hub;
use crate::discovery::catalogue::Catalogue;
use crate::registry::Registry;
use crate::storage::memory::MemoryStore;

/// Upstream's `/openapi/v2` without descriptions.
const UPSTREAM: &[u8] = include_bytes!("upstream-v2.json.gz");

fn upstream() -> Value {
    let mut text = String::new();
    flate2::read::GzDecoder::new(UPSTREAM).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

fn catalogue() -> Catalogue {
    let hub = Hub::new(Arc::new(MemoryStore::default()), Bytes::from_static(b"/registry/"));
    Catalogue::new(Arc::new(Registry::builtin(&hub, "/registry")))
}

fn written(document: impl serde::Serialize) -> Value {
    serde_json::to_value(document).expect("JSON")
}

/// Without texts for people: they are our own.
fn without_prose(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, value)| *key != "description" || !value.is_string());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_prose(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_prose).collect()),
        other => other.clone(),
    }
}

/// Every place where two documents differ, as `path: ours, upstream's`.
fn differences(at: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                differences(&format!("{at}|{key}"), a, b, out);
            }
        }
        _ if ours == theirs => {}
        _ => out.push(format!("{at}: {ours}, upstream has {theirs}")),
    }
}

/// Upstream keeps parameters that many operations share in one place, under names made from a hash of their prose.
fn resolved(value: &Value, shared: &Value) -> Value {
    match value {
        Value::Object(map) => {
            match map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/parameters/")) {
                Some(name) => shared[name].clone(),
                None => Value::Object(map.iter().map(|(key, value)| (key.clone(), resolved(value, shared))).collect()),
            }
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(|value| resolved(value, shared)).collect();
            // The order of names of required fields says nothing.
            if list.iter().all(Value::is_string) {
                list.sort_by_key(Value::to_string);
            } else if list.iter().all(|item| item["in"].is_string()) {
                list.sort_by_key(|item| (item["name"].to_string(), item["in"].to_string()));
            }
            Value::Array(list)
        }
        other => other.clone(),
    }
}

#[test]
fn version_2_is_upstreams() {
    let (ours, theirs) = (without_prose(&written(v2::document(&catalogue()))), without_prose(&upstream()));
    let (ours, theirs) = (resolved(&ours, &ours["parameters"]), resolved(&theirs, &theirs["parameters"]));
    let mut found = Vec::new();
    for part in ["definitions", "paths", "securityDefinitions", "security", "swagger"] {
        differences(part, &ours[part], &theirs[part], &mut found);
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

#[test]
fn version_3_has_the_operations_of_version_2() {
    let catalogue = catalogue();
    let mut ids = BTreeSet::new();
    let mut definitions = BTreeSet::new();
    for path in super::documents(&catalogue) {
        let document = written(v3::document(&catalogue, &path));
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for (name, _) in schemas {
            definitions.insert(name.clone());
        }
        for part in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(schemas.contains_key(name), "{path}: {name} is referred to and not there");
        }
        for item in document["paths"].as_object().expect("paths").values() {
            let operations = item.as_object().expect("item").values().filter_map(|one| one["operationId"].as_str());
            ids.extend(operations.map(str::to_owned));
        }
    }
    let theirs = upstream();
    for (path, item) in theirs["paths"].as_object().expect("paths") {
        for operation in item.as_object().expect("item").values().filter_map(|one| one["operationId"].as_str()) {
            assert!(ids.contains(operation), "{path}: {operation}");
        }
    }
    for name in theirs["definitions"].as_object().expect("definitions").keys() {
        assert!(definitions.contains(name), "{name}");
    }
}

#[test]
fn explain_has_words_for_types_and_their_fields() {
    let catalogue = catalogue();
    let (v2, v3) = (written(v2::document(&catalogue)), written(v3::document(&catalogue, "api/v1")));
    for definitions in [&v2["definitions"], &v3["components"]["schemas"]] {
        let spec = &definitions["io.k8s.api.core.v1.PodSpec"];
        for said in [&spec["description"], &spec["properties"]["containers"]["description"]] {
            assert!(said.as_str().is_some_and(|words| words.len() > 10), "{said}");
        }
    }
}
