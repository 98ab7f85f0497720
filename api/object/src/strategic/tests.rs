//! Strategic merge against answers recorded from upstream 1.37 for one Deployment.

use super::*;
use serde_json::json;

/// `schema` (flattened), `base` (the object), `cases` ([patch, result or error]); server defaults are left out.
const UPSTREAM: &str = include_str!("upstream.json");

fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(k, v)| (k.clone(), without_empty(v)));
            Value::Object(entries.filter(|(_, v)| *v != json!({}) && *v != json!([])).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

#[test]
fn answers_are_upstreams() {
    let data: Value = serde_json::from_str(UPSTREAM).expect("test data");
    let schema = schema::parse::schema(&data["schema"]);
    for case in data["cases"].as_array().expect("cases") {
        let (patch, want) = (&case[0], &case[1]);
        let mut object = data["base"].clone();
        let result = apply(&mut object, patch.clone(), &schema);
        match (result, want.get("code")) {
            (Ok(()), None) => assert_eq!(without_empty(&object), without_empty(want), "{patch}"),
            (Err(status), Some(code)) => {
                assert_eq!(json!(status.code), *code, "{patch}");
                assert_eq!(json!(status.message), want["message"], "{patch}");
            }
            (result, _) => panic!("{patch}: {result:?}, upstream: {want}"),
        }
    }
}

#[test]
fn an_empty_patch_changes_nothing() {
    let data: Value = serde_json::from_str(UPSTREAM).expect("test data");
    let schema = schema::parse::schema(&data["schema"]);
    let mut object = data["base"].clone();
    apply(&mut object, json!({}), &schema).expect("empty patch");
    assert_eq!(object, data["base"]);
}
