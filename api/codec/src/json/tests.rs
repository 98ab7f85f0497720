//! What comes out of a body, and what is said about a bad one.

use super::*;
use serde_json::json;

fn typed(name: &str, body: &str) -> Result<Decoded, DecodeError> {
    decode(body.as_bytes(), Form::Typed(types::find(name).unwrap()))
}

#[test]
fn unknown_and_duplicate_fields_are_told_with_their_paths() {
    let body = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"1","x":"2"},"nope":1},
        "spec":{"containers":[{"name":"c","image":"i","image":"j","foo":{"bar":1}}],"hostNetwork":true,"hostNetwork":true},"zip":0}"#;
    let decoded = typed("core.v1.Pod", body).unwrap();
    assert_eq!(
        decoded.strict,
        [
            r#"duplicate field "metadata.labels.x""#,
            r#"unknown field "metadata.nope""#,
            r#"duplicate field "spec.containers[0].image""#,
            r#"unknown field "spec.containers[0].foo""#,
            r#"duplicate field "spec.hostNetwork""#,
            r#"unknown field "zip""#,
        ]
    );
    assert_eq!(decoded.object["spec"]["containers"][0]["image"], "j");
    let error = decoded.into_strict().unwrap_err().to_string();
    assert!(error.starts_with(r#"strict decoding error: duplicate field "metadata.labels.x", unknown"#), "{error}");
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let cases = [
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":[{"ports":[{"containerPort":3000000000}]}]}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field \
             ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":{"name":"a"}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "core.v1.Pod",
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        ("core.v1.Secret", r#"{"data":{"a":"@@"}}"#, "illegal base64 data at input byte 0"),
    ];
    for (name, body, want) in cases {
        assert_eq!(typed(name, body).unwrap_err(), DecodeError::Type(want.to_owned()), "{body}");
    }
}

#[test]
fn what_is_no_json_is_a_syntax_error() {
    for body in ["", "{", r#"{"a":1} x"#, "[[[[", "\u{1}"] {
        assert!(matches!(typed("core.v1.Pod", body), Err(DecodeError::Syntax(_) | DecodeError::Type(_))), "{body}");
    }
}

/// Lists inside one another, this many.
fn lists(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// Runs on half of the stack that the server's threads have: the other half is for what calls a decoder.
fn on_half_a_stack(run: fn()) {
    let thread = std::thread::Builder::new().stack_size(meta::depth::STACK_BYTES / 2).spawn(run);
    thread.unwrap().join().unwrap();
}

#[test]
fn a_body_nests_as_deep_as_an_object_may() {
    on_half_a_stack(depth_of_bodies);
}

fn depth_of_bodies() {
    use meta::depth::{MAX_DEPTH, TOO_DEEP};
    let too_deep = Err(DecodeError::Type(TOO_DEEP.to_owned()));
    for decode in [decode, crate::yaml::decode] {
        assert!(decode(lists(MAX_DEPTH).as_bytes(), Form::Any).is_ok());
        assert_eq!(decode(lists(MAX_DEPTH + 1).as_bytes(), Form::Any), too_deep);
        // The object, its data and what is below.
        let revision = |levels: usize| format!(r#"{{"kind":"ControllerRevision","data":{{"a":{}}}}}"#, lists(levels));
        let form = Form::Typed(types::find("apps.v1.ControllerRevision").unwrap());
        assert!(decode(revision(MAX_DEPTH - 2).as_bytes(), form).is_ok());
        assert_eq!(decode(revision(MAX_DEPTH - 1).as_bytes(), form), too_deep);
        assert!(decode(revision(MAX_DEPTH - 2).as_bytes(), Form::Custom).is_ok());
        assert_eq!(decode(revision(MAX_DEPTH - 1).as_bytes(), Form::Custom), too_deep);
    }
    assert_eq!(decode("[".repeat(100_000).as_bytes(), Form::Any), too_deep);
    assert!(crate::yaml::decode("- ".repeat(100_000).as_bytes(), Form::Any).is_err());
    let twice = format!("a: 1\na: {}\n", lists(MAX_DEPTH - 1));
    assert_eq!(crate::yaml::decode(twice.as_bytes(), Form::Any).unwrap().strict.len(), 1, "the walk for repeated keys");
    let deepest = crate::yaml::decode(lists(MAX_DEPTH).as_bytes(), Form::Any).unwrap().object;
    assert_eq!(crate::yaml::decode(crate::yaml::encode(&deepest).as_bytes(), Form::Any).unwrap().object, deepest);
}

#[test]
fn json_inside_protobuf_counts_with_what_is_around_it() {
    on_half_a_stack(depth_of_json_in_protobuf);
}

fn depth_of_json_in_protobuf() {
    use meta::depth::MAX_DEPTH;
    let wrap = |levels: usize| {
        let data: Value = serde_json::from_str(&lists(levels)).unwrap();
        let object =
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {}, "data": {"a": data}});
        crate::proto::encode_object(&object).unwrap()
    };
    assert!(crate::proto::decode_object(&wrap(MAX_DEPTH - 2)).is_ok());
    assert_eq!(
        crate::proto::decode_object(&wrap(MAX_DEPTH - 1)).map(drop),
        Err(DecodeError::Syntax("exceeded max depth".to_owned()))
    );
}

#[test]
fn custom_resources_keep_what_they_hold() {
    let body =
        r#"{"apiVersion":"a/v1","kind":"X","metadata":{"name":"n","foo":1},"spec":{"a":null,"b":[],"c":1.0,"c":2}}"#;
    let decoded = decode(body.as_bytes(), Form::Custom).unwrap();
    assert_eq!(decoded.object["spec"], json!({"a": null, "b": [], "c": 2}));
    assert_eq!(decoded.object["metadata"], json!({"name": "n"}));
    assert_eq!(decoded.strict, [r#"unknown field "metadata.foo""#, r#"duplicate field "spec.c""#]);
}

#[test]
fn schemas_of_custom_resources_are_read_along_their_own_type() {
    let body = r#"{"spec":{"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object","properties":{
        "a":{"items":{"type":"string","bogus":1},"default":null},"b":{"additionalProperties":true}}}}}]}}"#;
    let decoded = typed("apiextensions.v1.CustomResourceDefinition", body).unwrap();
    let path = "spec.versions[0].schema.openAPIV3Schema.properties.a.items.bogus";
    assert_eq!(decoded.strict, [format!("unknown field \"{path}\"")]);
}
