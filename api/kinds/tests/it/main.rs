//! What upstream 1.37 makes of objects, recorded, against what this crate makes of them: one line a case in
//! `cases/*.jsonl` with the operation, the object, the old one on updates, and upstream's answer (`want` or `errors`,
//! and `warnings`).

use std::collections::BTreeSet;

use kinds::{Context, KindRef, User, normal};
use serde_json::Value;

const CREATE: &str = include_str!("cases/create.jsonl");
const INVALID: [&str; 3] = [
    include_str!("cases/invalid_others.jsonl"),
    include_str!("cases/invalid.jsonl"),
    include_str!("cases/invalid_workloads.jsonl"),
];

struct Case {
    name: String,
    op: String,
    kind: KindRef,
    object: Value,
    old: Option<Value>,
    want: Option<Value>,
    errors: BTreeSet<String>,
    warnings: BTreeSet<String>,
}

fn strings(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(comparable)).collect()
}

fn cases(text: &str) -> impl Iterator<Item = Case> {
    text.lines().map(|line| {
        let mut case: Value = serde_json::from_str(line).expect("a case is JSON");
        let object = case["object"].take();
        let api_version = object["apiVersion"].as_str().expect("apiVersion");
        let (group, version) = meta::gvk::split_api_version(api_version);
        let kind =
            kinds::by_kind(group, version, object["kind"].as_str().expect("kind")).expect("a known kind").clone();
        Case {
            name: case["name"].as_str().unwrap_or("").to_owned(),
            op: case["op"].as_str().unwrap_or("").to_owned(),
            errors: strings(&case["errors"]),
            warnings: strings(&case["warnings"]),
            old: case.get_mut("old").map(Value::take),
            want: case.get_mut("want").map(Value::take),
            kind,
            object,
        }
    })
}

fn context() -> Context {
    let user = User { name: "admin".to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() };
    Context { user, ..Context::at("2026-01-02T03:04:05Z".parse().expect("a time")) }
}

/// Reads an object as the server does: in its stored form, defaulted.
fn read(kind: &KindRef, mut object: Value) -> Value {
    normal::normalize(&mut object, kind.message.expect("a built-in kind"));
    kind.apply_defaults(&mut object);
    (kind.hooks.to_storage)(&mut object);
    object
}

/// The kind that objects of this one are stored, prepared and checked as.
fn stored(kind: &KindRef) -> KindRef {
    let gvk = &kind.storage.as_ref().expect("a stored kind").kind;
    kinds::by_kind(&gvk.group, &gvk.version, &gvk.kind).expect("a built-in kind").clone()
}

/// What this crate answers: the object or the errors, and the warnings.
fn answer(case: &Case) -> (Value, BTreeSet<String>, BTreeSet<String>) {
    let kind = stored(&case.kind);
    let mut object = read(&case.kind, case.object.clone());
    if kind.message != case.kind.message {
        kind.apply_defaults(&mut object);
    }
    let old = case.old.clone().map(|old| read(&case.kind, old));
    let errors = match (case.op.as_str(), &old) {
        ("create", _) => {
            object["metadata"]["uid"] = "00000000-0000-0000-0000-000000000001".into();
            object["metadata"]["creationTimestamp"] = "2026-01-02T03:04:05Z".into();
            kind.prepare_create(&mut object, &context());
            kind.check(&object)
        }
        ("update", Some(old)) => {
            kind.prepare_update(&mut object, old, &context());
            kind.check_update(&object, old)
        }
        (name, Some(old)) => {
            let sub = kind.subresource(name).expect("a subresource");
            kind.prepare_subresource(sub, &mut object, old, &context());
            kind.check_subresource(sub, &object, old)
        }
        _ => panic!("{}: no old object", case.name),
    };
    let warnings = (kind.hooks.warnings)(&object, old.as_ref()).into_iter().collect();
    (case.kind.hooks.from_storage)(&mut object);
    normal::normalize(&mut object, case.kind.message.expect("a built-in kind"));
    (object, errors.iter().map(|e| comparable(&e.to_string())).collect(), warnings)
}

/// Where two values differ, for people.
fn differences(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let (x, y) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                if a.contains_key(key) != b.contains_key(key) {
                    let text = |side: &serde_json::Map<String, Value>| side.get(key).map(ToString::to_string);
                    out.push(format!("{path}.{key}: ours {:?}, theirs {:?}", text(a), text(b)));
                } else {
                    differences(&format!("{path}.{key}"), x, y, out);
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{i}]"), x, y, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push(format!("{path}: ours {a}, theirs {b}")),
    }
}

/// Go prints structs with internal names and adds a diff after a line break: neither is compared.
fn comparable(error: &str) -> String {
    let line = error.lines().next().unwrap_or("");
    let cuts = [(": Invalid value: {", "}: "), (": Duplicate value: {", "}: "), (": Invalid value: [", "]: ")];
    let cut = cuts.iter().find_map(|(start, end)| Some((line.split_once(start)?, end)));
    match cut {
        Some(((path, rest), end)) => format!("{path}: … {}", rest.rsplit_once(end).map_or("", |(_, detail)| detail)),
        None => line.to_owned(),
    }
}

fn compare(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for case in cases(text) {
        let (object, errors, warnings) = answer(&case);
        for missing in case.errors.difference(&errors) {
            problems.push(format!("{}: not said: {missing}", case.name));
        }
        for extra in errors.difference(&case.errors) {
            problems.push(format!("{}: said too much: {extra}", case.name));
        }
        if let Some(want) = &case.want {
            let mut found = Vec::new();
            differences("", &object, want, &mut found);
            problems.extend(found.into_iter().map(|d| format!("{}: {d}", case.name)));
            for missing in case.warnings.symmetric_difference(&warnings) {
                problems.push(format!("{}: warning: {missing}", case.name));
            }
        }
    }
    problems
}

#[test]
fn objects_come_out_as_upstream_makes_them() {
    let problems = compare(CREATE);
    assert!(problems.is_empty(), "{} differences\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn what_is_wrong_is_said_as_upstream_says_it() {
    let problems: Vec<String> = INVALID.iter().flat_map(|cases| compare(cases)).collect();
    assert!(problems.is_empty(), "{} differences\n{}", problems.len(), problems.join("\n"));
}
