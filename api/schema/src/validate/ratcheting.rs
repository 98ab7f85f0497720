//! What an update is forgiven and what not: the cases of upstream's tests of `CRDValidationRatcheting` and of its
//! `CorrelatedObject`, each a schema of `spec`, what it was, what it becomes, and where that is wrong.

use super::*;
use crate::parse;
use serde_json::json;

const NOTHING: &[&str] = &[];

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "ex.io/v1", "kind": "Probe", "metadata": {"name": "p"}, "spec": spec})
}

fn schema_of(spec: &Value) -> Schema {
    let metadata = parse::schema(&json!({"type": "object", "properties": {"name": {"type": "string"}}}));
    parse::custom_resource(&json!({"type": "object", "properties": {"spec": spec, "status": spec}}), &metadata.into())
}

fn judged(schema: &Value, old: Option<&Value>, new: &Value) -> Vec<String> {
    let old = old.map(object);
    let errors = validate(&object(new), old.as_ref(), &schema_of(schema), &mut Budget::default());
    errors.into_iter().map(|error| error.path).collect()
}

/// Judges an update, and sees that what is forgiven would be wrong in a new object.
#[track_caller]
fn case(what: &str, schema: &Value, old: Value, new: Value, wrong: &[&str]) {
    assert_eq!(judged(schema, Some(&old), &new), wrong, "{what}");
    assert!(!judged(schema, None, &new).is_empty(), "{what}: nothing is wrong with it");
    // An update of the status is judged as the status alone, and as much of it is forgiven.
    let at_status = |value: &Value| json!({"apiVersion": "ex.io/v1", "kind": "Probe", "status": value});
    let (new, old) = (at_status(&new), at_status(&old));
    let errors = validate_status(&new, &old, &schema_of(schema), &mut Budget::default());
    let paths = errors.into_iter().map(|error| error.path);
    let wanted = wrong.iter().map(|path| path.replacen("spec", "status", 1).replace(NO_PATH, "status"));
    assert_eq!(paths.collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "status: {what}");
}

fn fields(fields: Value) -> Value {
    json!({"type": "object", "properties": fields})
}

#[test]
fn a_value_that_is_what_it_was_is_forgiven() {
    let limits = fields(json!({"n": {"type": "integer", "minimum": 10}, "s": {"type": "string", "enum": ["A"]},
        "p": {"type": "string", "pattern": "^[1-9]+$"}, "f": {"type": "string", "format": "byte"},
        "x": {"type": "string", "maxLength": 3}, "t": {"type": "integer"}, "other": {"type": "string"}}));
    for (field, was, other) in [
        ("n", json!(0), json!(5)),
        ("s", json!("D"), json!("E")),
        ("p", json!("no"), json!("w123")),
        ("f", json!("no format"), json!("asd")),
        ("x", json!("long"), json!("longer")),
        ("t", json!("of another type"), json!(true)),
    ] {
        let at = format!("spec.{field}");
        case("unchanged", &limits, json!({field: was}), json!({field: was, "other": "new"}), NOTHING);
        case("changed", &limits, json!({field: was}), json!({field: other}), &[&at]);
        case("new", &limits, json!({}), json!({field: was}), &[&at]);
    }
    let maps = fields(json!({"m": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1000}}}));
    let old = json!({"m": {"a": 1, "b": 9999}});
    case("values of a map", &maps, old.clone(), json!({"m": {"a": 1, "b": 2000}}), NOTHING);
    case("values of a map", &maps, old, json!({"m": {"a": 2, "b": 2000}}), &["spec.m.a"]);
}

#[test]
fn limits_of_a_whole_hold_when_any_of_it_changes() {
    let counted =
        fields(json!({"m": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
        "l": {"type": "array", "minItems": 10, "items": {"type": "string"}}, "other": {"type": "string"}}));
    let m = json!({"m": {"a": "1", "b": "2"}});
    case("another field", &counted, m.clone(), json!({"m": {"a": "1", "b": "2"}, "other": "x"}), NOTHING);
    case("a value of it", &counted, m.clone(), json!({"m": {"a": "1", "b": "3"}}), &["spec.m"]);
    case("a key of it", &counted, m, json!({"m": {"a": "1", "c": "2"}}), &["spec.m"]);
    let l = json!({"l": ["1", "2"]});
    case("another field", &counted, l.clone(), json!({"l": ["1", "2"], "other": "x"}), NOTHING);
    for new in [json!(["1", "3"]), json!(["2", "1"]), json!(["1"]), json!(["1", "2", "3"])] {
        case("an item of it", &counted, l.clone(), json!({"l": new}), &["spec.l"]);
    }
    let required = fields(json!({"o": {"type": "object", "required": ["must"],
        "properties": {"must": {"type": "string"}, "may": {"type": "string"}}}, "other": {"type": "string"}}));
    let o = json!({"o": {"may": "x"}});
    case("another field", &required, o.clone(), json!({"o": {"may": "x"}, "other": "x"}), NOTHING);
    case("a field beside", &required, o, json!({"o": {"may": "y"}}), &["spec.o.must"]);
}

#[test]
fn items_of_a_map_are_found_by_their_keys_wherever_they_stand() {
    let list = fields(json!({"l": {"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name", "port"], "items": {"type": "object", "required": ["name", "port"],
            "properties": {"name": {"type": "string"}, "port": {"type": "integer", "multipleOf": 2},
                "v": {"type": "string", "maxLength": 3}}}}}));
    let item = |name: &str, port: i64, v: &str| json!({"name": name, "port": port, "v": v});
    let old = json!({"l": [item("a", 443, "x"), item("b", 2379, "long"), item("b", 2, "z")]});
    let new = |items: &[Value]| json!({"l": items});
    let moved = new(&[item("b", 2, "z"), item("a", 443, "x"), item("b", 2379, "long")]);
    case("moved", &list, old.clone(), moved, NOTHING);
    let sibling = new(&[item("b", 2379, "y"), item("a", 443, "x"), item("c", 8080, "n")]);
    case("a sibling of the keys changed", &list, old.clone(), sibling, NOTHING);
    let added = new(&[item("c", 1, "n"), item("a", 443, "x")]);
    case("added", &list, old.clone(), added, &["spec.l[0].port"]);
    let value = new(&[item("b", 2379, "other"), item("a", 443, "x")]);
    case("a value changed", &list, old, value, &["spec.l[0].v"]);
}

#[test]
fn items_of_other_lists_are_not_correlated() {
    for kind in [json!(null), json!("atomic"), json!("set")] {
        let list = fields(json!({"l": {"type": "array", "x-kubernetes-list-type": kind, "items": {"type": "object",
            "x-kubernetes-map-type": "atomic", "properties": {"v": {"type": "string", "minLength": 6}}}},
            "other": {"type": "string"}}));
        let old = json!({"l": [{"v": "1"}, {"v": "2"}]});
        case("unchanged", &list, old.clone(), json!({"l": [{"v": "1"}, {"v": "2"}], "other": "x"}), NOTHING);
        let added = json!({"l": [{"v": "1"}, {"v": "2"}, {"v": "long enough"}]});
        case("added", &list, old.clone(), added, &["spec.l[0].v", "spec.l[1].v"]);
        case("moved", &list, old, json!({"l": [{"v": "2"}, {"v": "1"}]}), &["spec.l[0].v", "spec.l[1].v"]);
    }
}

#[test]
fn nothing_is_forgiven_below_alternatives() {
    let short = json!({"properties": {"a": {"maxLength": 1}}});
    let of = |word: &str, value: Value| {
        let mut node = fields(json!({"a": {"type": "string"}, "b": {"type": "string"}}));
        node[word] = value;
        fields(json!({"o": node, "other": {"type": "string"}}))
    };
    let old = json!({"o": {"a": "long"}});
    let found: [(&str, Value, &[&str]); 4] = [
        ("allOf", json!([short]), &["spec.o.a", NO_PATH]),
        ("anyOf", json!([short]), &[NO_PATH, "spec.o.a"]),
        ("oneOf", json!([short]), &[NO_PATH, "spec.o.a"]),
        ("not", json!({"required": ["a"]}), &[NO_PATH]),
    ];
    for (word, value, wrong) in found {
        let schema = of(word, value);
        case(word, &schema, old.clone(), json!({"o": {"a": "long"}, "other": "x"}), NOTHING);
        case(word, &schema, old.clone(), json!({"o": {"a": "long", "b": "x"}}), wrong);
    }
}

#[test]
fn unknown_fields_make_a_value_a_changed_one() {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "maxProperties": 0,
        "properties": {"a": {"type": "string"}}});
    let schema = fields(json!({"o": open, "other": {"type": "string"}}));
    case("all known", &schema, json!({"o": {"a": "x"}}), json!({"o": {"a": "x"}, "other": "x"}), NOTHING);
    case("one unknown", &schema, json!({"o": {"z": "x"}}), json!({"o": {"z": "x"}, "other": "x"}), &["spec.o"]);
}

/// What an object had twice before it may go on to have twice, and more besides; who had nothing twice gets nothing so.
#[test]
fn duplicates_are_forgiven_to_an_object_that_has_some() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}});
    let schema = fields(json!({"a": set, "b": set}));
    case("as before", &schema, json!({"a": [1, 1]}), json!({"a": [1, 1], "b": [2]}), NOTHING);
    case("more of them", &schema, json!({"a": [1, 1]}), json!({"a": [1, 1, 1], "b": [2, 2]}), NOTHING);
    case("the first", &schema, json!({"a": [1]}), json!({"a": [1, 1]}), &["spec.a[1]"]);
}

#[test]
fn what_an_object_is_and_embeds_is_always_judged() {
    let metadata = Schema::of(Type::Object);
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "kind": {"type": "string", "enum": ["Other"]}, "spec": {"type": "object"},
        "e": {"type": "object", "x-kubernetes-embedded-resource": true}}});
    let schema = parse::custom_resource(&schema, &metadata.into());
    let object = json!({"apiVersion": "ex.io/v1", "kind": "Probe", "metadata": {"name": "p"}, "e": {"kind": "K"}});
    let errors = validate(&object, Some(&object), &schema, &mut Budget::default());
    let mut paths: Vec<String> = errors.into_iter().map(|error| error.path).collect();
    paths.sort();
    assert_eq!(paths, ["e.apiVersion", "kind", "spec"]);
}

/// Own errors of a value come before those of what is in it, whether or not it had to be looked into first.
#[test]
fn errors_of_an_update_come_in_the_order_of_a_creation() {
    let schema = fields(json!({"o": {"type": "object", "required": ["must"], "properties": {"a": {"type": "string",
        "maxLength": 1}, "l": {"type": "array", "maxItems": 1, "items": {"type": "integer", "maximum": 1}}}}}));
    let new = json!({"o": {"a": "long", "l": [2, 3]}});
    let wrong = ["spec.o.must", "spec.o.a", "spec.o.l[0]", "spec.o.l[1]", "spec.o.l"];
    assert_eq!(judged(&schema, None, &new), wrong);
    assert_eq!(judged(&schema, Some(&json!({"o": {"a": "x", "l": [4]}})), &new), wrong);
}

#[test]
fn work_without_end_ends_at_the_budget() {
    let any = |inner: Value| json!({"anyOf": vec![inner; 4]});
    let schema = parse::schema(&any(any(any(any(json!({"minimum": 1}))))));
    let value = json!(0);
    let mut budget = Budget::of_steps(100);
    let errors = validate(&value, None, &schema, &mut budget);
    let last = errors.last().expect("told").to_string();
    assert!(last.contains("was not checked"), "{last}");
    assert_eq!(validate(&value, None, &schema, &mut Budget::of_steps(341)).len(), 5, "1 + 4 + 16 + 64 + 256 steps");
}
