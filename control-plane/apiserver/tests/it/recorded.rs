//! What upstream's kube-apiserver 1.37 answers to requests, recorded, against what this one answers: one line a request
//! in `cases/*.jsonl`, sent in order to one server. A line without a code sets something up; one that holds "eventually" is
//! sent until it is answered so. Of refusals all that clients read is compared (reason, message, causes), of other
//! answers the code, the warnings and, where a line says what it "gives", the objects without their metadata.

use std::time::{Duration, Instant};

use object::compare::same;
use serde_json::{Value, json};

use crate::world::{Reply, World};

/// Uids differ from server to server.
fn without_uids(text: &str) -> String {
    let shape = |word: &str| {
        let parts: Vec<usize> = word.split('-').map(str::len).collect();
        parts == [8, 4, 4, 4, 12] && word.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(word) = rest.get(..36) {
        if shape(word) {
            out.push_str("UID");
            rest = &rest[36..];
        } else {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..next]);
            rest = &rest[next..];
        }
    }
    out + rest
}

/// Structures are printed with Go's names, and objects with their uids and versions: neither is compared.
fn comparable(text: &str) -> String {
    let mut text = without_uids(text);
    for (open, close) in [("value: {", "}: "), ("value: [", "]: "), ("value: \"{", "}\": "), ("value: \"[{", "}]\": ")]
    {
        if let (Some(from), Some(to)) = (text.find(open), text.rfind(close))
            && to > from
        {
            text.replace_range(from..to + close.len(), "value: … ");
        }
    }
    text
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What is compared of an answer, in the form of the recorded lines.
fn shown(reply: &Reply) -> Value {
    let mut shown = json!({"code": reply.code});
    if reply.body["kind"] == "Status" && reply.body["status"] == "Failure" {
        shown["reason"] = reply.body["reason"].as_str().unwrap_or_default().into();
        let causes = reply.body["details"]["causes"].as_array().filter(|causes| !causes.is_empty());
        match causes.filter(|_| reply.code == 422) {
            Some(causes) => {
                let text = |cause: &Value, field: &str| cause[field].as_str().unwrap_or_default().to_owned();
                let line = |cause| comparable(&format!("{}: {}", text(cause, "field"), text(cause, "message")));
                let mut lines: Vec<String> = causes.iter().map(line).collect();
                lines.iter_mut().for_each(|line| line.truncate(line.find('\n').unwrap_or(line.len())));
                lines.sort();
                shown["causes"] = lines.into();
            }
            None => shown["says"] = comparable(reply.message()).into(),
        }
    }
    // What this server says of itself, upstream can't say.
    let own = |warning: &&String| !warning.trim_end_matches('"').ends_with(" yet");
    let warnings: Vec<&String> = reply.warnings.iter().filter(own).collect();
    if !warnings.is_empty() {
        let plain = |warning: &&String| {
            let inner = warning.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(warning);
            inner.replace("\\\"", "\"")
        };
        shown["warn"] = warnings.iter().map(plain).collect();
    }
    shown
}

/// An object without what differs from server to server, or all objects of a list.
fn given(body: &Value) -> Value {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(map) = object.as_object_mut() {
            map.remove("metadata");
        }
        object
    };
    match body["items"].as_array() {
        Some(items) => items.iter().map(plain).collect(),
        None => plain(body),
    }
}

/// In which fields the answer to a case differs from the recorded one.
fn differences(case: &Value, reply: &Reply) -> Vec<String> {
    let mut ours = shown(reply);
    if case.get("gives").is_some() {
        ours["gives"] = given(&reply.body);
    }
    let fields = ["code", "reason", "says", "causes", "warn", "gives"];
    let differs = |field: &&str| match (ours.get(*field), case.get(*field)) {
        (Some(ours), Some(theirs)) => !same(ours, theirs),
        (ours, theirs) => ours != theirs,
    };
    let told = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    let line = |field| format!("  {field}: ours {}\n  theirs {}", told(ours.get(field)), told(case.get(field)));
    fields.into_iter().filter(differs).map(line).collect()
}

/// How long what happens behind a request may take.
const EVENTUALLY: Duration = Duration::from_secs(20);

async fn replay(cases: &str) -> Vec<String> {
    let world = World::new().await;
    let mut problems = Vec::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).expect("a case is JSON");
        let (method, path) = case["do"].as_str().and_then(|what| what.split_once(' ')).expect("a method and a path");
        let body = match &case["body"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let header = |field: &str, default: Option<&str>| match case.get(field) {
            Some(value) => value.as_str().map(str::to_owned),
            None => default.map(str::to_owned),
        };
        let mut headers = vec![
            ("content-type", header("type", body.as_ref().map(|_| "application/json"))),
            ("accept", header("accept", Some("application/json"))),
        ];
        for name in ["impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-foo"] {
            headers.push((name, header(name, None)));
        }
        let headers: Vec<(&str, &str)> = headers.iter().filter_map(|(k, v)| Some((*k, v.as_deref()?))).collect();
        let started = Instant::now();
        let differ = loop {
            let reply = world.admin_sends(&headers, method, path, body.clone().unwrap_or_default()).await;
            let differ = if case.get("code").is_some() { differences(&case, &reply) } else { Vec::new() };
            if differ.is_empty() || case.get("eventually").is_none() || started.elapsed() > EVENTUALLY {
                break differ;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let sent: String = line.chars().take(200).collect();
        problems.extend(differ.into_iter().map(|difference| format!("{sent}\n{difference}")));
        debug_assert!(strings(&case["causes"]).all(|cause| !cause.is_empty()));
    }
    problems
}

async fn check(cases: &str) {
    let problems = replay(cases).await;
    assert!(problems.is_empty(), "{} differences\n{}", problems.len(), problems.join("\n"));
}

#[tokio::test]
async fn bodies_and_options_are_refused_as_upstream_refuses_them() {
    check(include_str!("cases/bodies.jsonl")).await;
}

#[tokio::test]
async fn patches_deletes_and_lists_end_as_upstreams_do() {
    check(include_str!("cases/patches_and_lists.jsonl")).await;
}

#[tokio::test]
async fn definitions_and_classes_are_refused_as_upstream_refuses_them() {
    check(include_str!("cases/definitions.jsonl")).await;
}

#[tokio::test]
async fn subresources_and_reviews_answer_as_upstreams_do() {
    check(include_str!("cases/subresources.jsonl")).await;
}

#[tokio::test]
async fn keys_that_are_there_twice_and_tables_of_nothing_are_told_as_upstream_tells_them() {
    check(include_str!("cases/repeated_keys_and_tables.jsonl")).await;
}

#[tokio::test]
async fn what_is_pruned_and_filled_in_goes_by_the_version_that_a_client_uses_as_upstreams_does() {
    check(include_str!("cases/pruning_and_versions.jsonl")).await;
}

#[tokio::test]
async fn numbers_formats_and_warnings_are_upstreams() {
    check(include_str!("cases/numbers_and_warnings.jsonl")).await;
}
