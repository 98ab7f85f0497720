//! Pruning, defaulting and validation of a custom resource against answers recorded from upstream 1.37.

use super::*;
use crate::{SchemaRef, apply_defaults, drop_nulls, parse, prune};
use serde_json::json;

/// `schema` and `cases`: a `spec` with one field, what is stored when it differs (defaults of other fields left out),
/// the errors ([reason, field, message]) or the unknown field that was warned of.
const UPSTREAM: &str = include_str!("upstream.json");

/// What the schema fills in for fields that a case does not set.
const DEFAULTS: [(&str, &str); 3] = [("def", "\"dflt\""), ("defnull", "\"dflt\""), ("odef", "{\"x\":5}")];

fn object_meta() -> SchemaRef {
    let strings = json!({"type": "object", "additionalProperties": {"type": "string"}});
    parse::schema(&json!({"type": "object", "properties": {
        "name": {"type": "string"}, "generateName": {"type": "string"}, "labels": strings, "annotations": strings,
        "finalizers": {"type": "array", "items": {"type": "string"}}}}))
    .into()
}

#[test]
fn answers_are_upstreams() {
    let data: Value = serde_json::from_str(UPSTREAM).expect("test data");
    let schema = parse::custom_resource(&data["schema"], &object_meta());
    for case in data["cases"].as_array().expect("cases") {
        let mut object =
            json!({"apiVersion": "ex.io/v1", "kind": "Probe", "metadata": {"name": "p"}, "spec": case["in"]});
        let unknown = prune(&mut object, &schema);
        // The recording holds one warning of several.
        match case["unknown"].as_str() {
            Some(path) => assert!(unknown.iter().any(|u| u == path), "{case}: {unknown:?}"),
            None => assert_eq!(unknown, Vec::<String>::new(), "{case}"),
        }
        drop_nulls(&mut object, &schema);
        apply_defaults(&mut object, &schema).unwrap();
        let mut errors: Vec<Value> = validate(&object, None, &schema, &mut Budget::default())
            .iter()
            .map(|e| json!([e.kind.cause(), e.path, e.body()]))
            .collect();
        let mut wanted = case["errors"].as_array().cloned().unwrap_or_default();
        // Upstream walks maps in no order.
        errors.sort_by_key(Value::to_string);
        wanted.sort_by_key(Value::to_string);
        assert_eq!(errors, wanted, "{case}");
        if wanted.is_empty() {
            let mut stored = case.get("out").unwrap_or(&case["in"]).clone();
            for (field, default) in DEFAULTS.iter().filter(|(field, _)| case["in"].get(field).is_none()) {
                stored[field] = serde_json::from_str(default).expect("default");
            }
            assert!(equal_numbers(&object["spec"], &stored), "{case}: {}", object["spec"]);
        }
    }
}

fn equal_numbers(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal_numbers(v, w)))
        }
        _ => equal(a, b),
    }
}

#[test]
fn limits_on_the_name_hold() {
    let data: Value = serde_json::from_str(UPSTREAM).expect("test data");
    let schema = parse::custom_resource(&data["schema"], &object_meta());
    let object = json!({"metadata": {"name": "a".repeat(21)}});
    assert_eq!(
        validate(&object, None, &schema, &mut Budget::default())[0].to_string(),
        "metadata.name: Too long: may not be more than 20 bytes"
    );
}

/// Every walker of this crate, on a schema and an object as deep as these may be and on half of the stack that there is.
#[test]
fn walkers_have_stack_enough_for_the_deepest_schema() {
    let walk = || {
        let nest =
            |levels: usize, leaf: Value, inside: fn(Value) -> Value| (0..levels).fold(leaf, |inner, _| inside(inner));
        let levels = crate::structural::MAX_DEPTH - 1;
        let object = |inner| {
            let properties = serde_json::Map::from_iter([("a".to_owned(), inner)]);
            let mut node = json!({"type": "object", "default": {}});
            node["properties"] = Value::Object(properties);
            node
        };
        let document = nest(levels, json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), object);
        assert!(!crate::structural::check(&document, "").iter().any(|e| e.to_string().contains("nest deeper")));
        let schema = parse::schema(&document);
        let mut value = nest(meta::depth::MAX_DEPTH, json!(1.0), |inner| {
            Value::Object(serde_json::Map::from_iter([("a".to_owned(), inner)]))
        });
        drop_nulls(&mut value, &schema);
        prune(&mut value, &schema);
        apply_defaults(&mut value, &schema).unwrap();
        crate::unknown_fields(&value, &schema);
        validate(&value, None, &schema, &mut Budget::default());
        for version in [crate::openapi::Version::V2, crate::openapi::Version::V3] {
            crate::openapi::node(&schema, version);
        }
        // Deeper than any body gets here.
        let deeper = nest(levels + 1, json!({"type": "object"}), object);
        assert!(crate::structural::check(&deeper, "").iter().any(|e| e.to_string().contains("nest deeper")));
        parse::schema(&deeper);
    };
    std::thread::Builder::new().stack_size(meta::depth::STACK_BYTES / 2).spawn(walk).unwrap().join().unwrap();
}

/// As many errors as an object may have, each with all that would have been right: gigabytes.
#[test]
fn an_enumeration_without_end_is_shown_up_to_a_bound() {
    let values: Vec<String> = (0..20_000).map(|n| format!("v{n}")).collect();
    let field = json!({"type": "array", "items": {"type": "string", "enum": values}});
    let schema = parse::schema(&json!({"type": "object", "properties": {"f": field}}));
    let errors = validate(&json!({"f": vec!["other"; 300]}), None, &schema, &mut Budget::default());
    assert_eq!(errors.len(), MAX_ERRORS);
    let shown = errors[0].to_string();
    assert!(shown.contains("\"v0\", \"v1\"") && shown.len() < 2 * MAX_SHOWN, "{}", shown.len());
    assert!(
        validate(&json!({"f": ["v19999"]}), None, &schema, &mut Budget::default()).is_empty(),
        "all of it is meant"
    );
}
