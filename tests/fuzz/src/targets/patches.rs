//! Patches, server-side apply and managed fields: an object and what somebody wants changed of it.

use kinds::definitions;
use meta::Gvk;
use object::apply::{Write, apply, update};
use object::{Set, compare, json_patch, managed, merge_patch, strategic};
use serde_json::{Value, json};

use super::objects::POD;
use crate::input::{join, parts, value};
use crate::table::{DEEP, JSON, Target};

pub const TARGETS: &[Target] = &[
    Target {
        name: "json-patch",
        what: "an object and a JSON patch",
        run: by_json,
        seeds: json_patches,
        memory: 3000,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "merge-patch",
        what: "an object and a merge patch, and the patch between two objects",
        run: by_merge,
        seeds: merges,
        memory: 1500,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "strategic-patch",
        what: "a pod and a strategic merge patch",
        run: by_strategy,
        seeds: strategics,
        memory: 3000,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "apply",
        what: "a live pod and an applied configuration",
        run: applied,
        seeds: configs,
        memory: 6000,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "managed-fields",
        what: "managedFields and field sets",
        run: managed_fields,
        seeds: field_sets,
        memory: 3000,
        nests: JSON,
        depth: DEEP,
    },
];

/// Copies may make an object larger than its patch: upstream's limit for all copies of a patch.
const COPIED: usize = 3 << 20;

fn with_pod(patches: &[&str]) -> Vec<Vec<u8>> {
    patches.iter().map(|patch| join(&[POD.as_bytes(), patch.as_bytes()])).collect()
}

fn json_patches() -> Vec<Vec<u8>> {
    with_pod(&[
        r#"[{"op":"add","path":"/metadata/labels/x","value":"y"},{"op":"remove","path":"/spec/containers/0"}]"#,
        r#"[{"op":"copy","from":"/metadata","path":"/metadata/a"},{"op":"copy","from":"/metadata","path":"/metadata/a/b"}]"#,
        r#"[{"op":"move","from":"/spec/volumes/0","path":"/spec/volumes/-"},{"op":"test","path":"/kind","value":"Pod"}]"#,
        r#"[{"op":"replace","path":"","value":{}},{"op":"add","path":"/a~1b/~0","value":null}]"#,
    ])
}

fn size(value: &Value) -> usize {
    value.to_string().len()
}

fn by_json(input: &[u8]) {
    let [object, patch] = parts(input);
    let (Some(mut object), Some(patch)) = (value(object), value(patch)) else { return };
    let before = size(&object);
    match json_patch::apply(&mut object, &patch) {
        Ok(()) => assert!(size(&object) <= before + 2 * COPIED + 2 * input.len(), "a patch makes no giants"),
        Err(status) => assert!(status.to_string().len() < 8 * input.len() + 4096, "an error is no copy of the object"),
    }
}

fn merges() -> Vec<Vec<u8>> {
    with_pod(&[
        r#"{"metadata":{"labels":{"c":null,"x":"y"}},"spec":null}"#,
        r#"{"spec":{"containers":[{"name":"y"}]}}"#,
        "[1]",
    ])
}

fn by_merge(input: &[u8]) {
    let [from, to] = parts(input);
    let (Some(from), Some(to)) = (value(from), value(to)) else { return };
    let mut object = from.clone();
    let _ = merge_patch::apply(&mut object, to.clone());
    let mut again = object.clone();
    if merge_patch::apply(&mut again, to.clone()).is_ok() {
        assert_eq!(again, object, "merged twice is merged once");
    }
    let (from, to) = (without_nulls(from), without_nulls(to));
    let mut made = from.clone();
    merge_patch::merge(&mut made, merge_patch::diff(&from, &to));
    assert_eq!(made, to, "a difference makes the one the other");
}

/// A merge patch can't say null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect())
        }
        other => other,
    }
}

fn strategics() -> Vec<Vec<u8>> {
    with_pod(&[
        r#"{"spec":{"containers":[{"name":"x","image":"j"},{"name":"n","image":"k"}],"$setElementOrder/containers":[{"name":"n"},{"name":"x"}]}}"#,
        r#"{"spec":{"volumes":[{"name":"v","$patch":"delete"}],"$retainKeys":["containers"]},"metadata":{"$patch":"replace","finalizers":["a"],"$deleteFromPrimitiveList/finalizers":["b"]}}"#,
        r#"{"spec":{"containers":[{"name":"x","env":[{"name":"A","$patch":"merge","value":"C"}],"ports":[{"containerPort":80,"$patch":"delete"}]}]}}"#,
    ])
}

fn by_strategy(input: &[u8]) {
    let [object, patch] = parts(input);
    let (Some(mut object), Some(patch)) = (value(object), value(patch)) else { return };
    let Some(schema) = definitions::by_name("core.v1.Pod") else { return };
    let before = size(&object);
    match strategic::apply(&mut object, patch, &schema) {
        Ok(()) => assert!(size(&object) <= 2 * (before + input.len()) + 64, "a merge makes no giants"),
        Err(status) => assert!(status.to_string().len() < 8 * input.len() + 4096, "an error is no copy of the object"),
    }
}

fn configs() -> Vec<Vec<u8>> {
    with_pod(&[
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"x","image":"j","ports":[{"containerPort":81}]}]}}"#,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"c":"e"},"finalizers":["f","f"]},"spec":{"tolerations":[],"containers":[{"image":"j"}]}}"#,
    ])
}

fn applied(input: &[u8]) {
    let [live, config] = parts(input);
    let (Some(live), Some(config)) = (value(live), value(config)) else { return };
    let (Some(schema), gvk, reset) =
        (definitions::by_name("core.v1.Pod"), Gvk::new("", "v1", "Pod"), Set::of_paths(&[&["status"]]))
    else {
        return;
    };
    let write =
        Write { manager: "m", subresource: "", gvk: &gvk, schema: &schema, reset: &reset, now: "2026-01-02T03:04:05Z" };
    let mut updated = config.clone();
    update(Some(&live), &mut updated, &write);
    let _ = apply(Some(&live), &config, &write, false);
    let Ok(first) = apply(Some(&live), &config, &write, true) else { return };
    // The second applies what is there by now: nothing is left to change, and nobody is left to conflict with.
    let second = apply(Some(&first.object), &config, &write, false);
    let second = second.unwrap_or_else(|status| panic!("applied again: {status}"));
    assert_eq!(second.object, first.object, "applied twice is applied once");
}

fn field_sets() -> Vec<Vec<u8>> {
    let entries = json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:a": {".": {}, "k:{\"n\":\"x\",\"p\":1}": {"f:b": {}}, "v:\"s\"": {}, "i:3": {}}}}]);
    let other = json!({"f:a": {"f:b": {}}, "f:c": {}});
    let entries = [entries, json!([{}]), json!([])];
    entries.iter().map(|e| join(&[e.to_string().as_bytes(), other.to_string().as_bytes()])).collect()
}

fn managed_fields(input: &[u8]) {
    let [entries, fields] = parts(input);
    let Some(entries) = value(entries) else { return };
    let _ = managed::is_reset(Some(&entries));
    if let Some(decoded) = managed::decode(Some(&entries)) {
        let encoded = managed::encode(decoded);
        let again = managed::encode(managed::decode(Some(&encoded)).expect("what was written is read"));
        assert_eq!(again, encoded, "as it was");
    }
    let Some(set) = value(fields).as_ref().and_then(Set::from_value) else { return };
    let again = Set::from_value(&set.clone().into_value()).expect("what was written is read");
    assert_eq!(again, set, "as it was");
    assert!(set.clone().minus(&set).is_empty(), "nothing is left of it");
    assert_eq!(set.clone().union(set.clone()), set, "with itself it is itself");
    assert_eq!(set.intersection(&set), set, "with itself it is itself");
    let _ = set.paths();
    if let (Some(schema), true) = (definitions::by_name("core.v1.Pod"), entries.is_object()) {
        let _ = compare::field_set(&entries, &schema);
    }
}
