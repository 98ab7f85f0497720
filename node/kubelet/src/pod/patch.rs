//! The smallest patch that brings the API's status to what it should be. Pure.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Lists that a strategic merge patch merges by `ip`: replaced as a whole, or old addresses would stay.
const MERGED_BY_IP: [&str; 2] = ["podIPs", "hostIPs"];

/// A strategic merge patch for the status subresource; the UID makes sure that it is this pod.
pub fn status(uid: &str, old: &PodStatus, new: &PodStatus) -> Value {
    let (old, new) = (object(old), object(new));
    let mut diff = Map::new();
    for (key, value) in &new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let value = match key.as_str() {
            "conditions" => changed_conditions(before, value),
            key if MERGED_BY_IP.contains(&key) && before.is_some() => replaced(value),
            _ => value.clone(),
        };
        diff.insert(key.clone(), value);
    }
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        diff.insert(key.clone(), Value::Null);
    }
    json!({"metadata": {"uid": uid}, "status": diff})
}

fn object<T: serde::Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Only conditions that are new or differ: others on the server are left as they are. The server merges a condition
/// into the one of its type, so what it no longer says is taken out by name.
fn changed_conditions(old: Option<&Value>, new: &Value) -> Value {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let old = old.map(list).unwrap_or_default();
    let with_gaps = |mut fresh: Value| {
        let before = old.iter().find(|o| o["type"] == fresh["type"]).and_then(Value::as_object);
        for key in before.into_iter().flatten().map(|(key, _)| key) {
            if fresh.get(key).is_none() {
                fresh[key.as_str()] = Value::Null;
            }
        }
        fresh
    };
    Value::Array(list(new).into_iter().filter(|c| !old.contains(c)).map(with_gaps).collect())
}

fn replaced(value: &Value) -> Value {
    let mut list = vec![json!({"$patch": "replace"})];
    list.extend(value.as_array().cloned().unwrap_or_default());
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_sent() {
        let status_of = |v: Value| -> PodStatus { serde_json::from_value(v).unwrap() };
        let old = status_of(json!({"phase": "Pending", "podIPs": [{"ip": "1"}], "message": "m",
            "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False", "reason": "R"}]}));
        let new = status_of(json!({"phase": "Running", "podIPs": [{"ip": "2"}],
            "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}));
        assert_eq!(
            status("u", &old, &new),
            json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "message": null,
                "podIPs": [{"$patch": "replace"}, {"ip": "2"}],
                "conditions": [{"type": "B", "status": "True", "reason": null}]}})
        );
    }
}
