//! Objects as clients send them: JSON, YAML and protobuf of every kind, with defaulting, validation and printing; custom
//! definitions, their schemas, and what is made of resources by them.

use std::sync::Arc;

use codec::proto::{decode_message, decode_object, encode_object, encode_value};
use codec::table::{Include, jsonpath, row};
use codec::{Form, json, yaml};
use jiff::Timestamp;
use kinds::{Context, Kind, KindRef, types};
use meta::Selector;
use schema::parse;
use serde_json::{Value, json as object};

use crate::input::{join, parts, text, texts, value};
use crate::table::{DEEP, FLAT, JSON, Target, YAML};

pub const TARGETS: &[Target] = &[
    Target {
        name: "json",
        what: "request bodies in JSON",
        run: json,
        seeds: bodies,
        memory: 400,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "yaml",
        what: "request bodies in YAML",
        run: yaml,
        seeds: yamls,
        memory: 1500,
        nests: YAML,
        depth: DEEP,
    },
    Target {
        name: "protobuf",
        what: "request bodies in protobuf",
        run: protobuf,
        seeds: protobufs,
        memory: 1500,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "messages",
        what: "protobuf by type",
        run: messages,
        seeds: message_seeds,
        memory: 1500,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "kinds",
        what: "objects of every kind, defaulted, checked and printed",
        run: every_kind,
        seeds: kind_seeds,
        memory: 3000,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "updates",
        what: "an object and the one it replaces",
        run: updates,
        seeds: update_seeds,
        memory: 3000,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "crd",
        what: "custom resource definitions",
        run: crd,
        seeds: crds,
        memory: 6000,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "schema",
        what: "a structural schema and an object under it",
        run: structural,
        seeds: schemas,
        memory: 6000,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "jsonpath",
        what: "paths of printer columns",
        run: paths,
        seeds: path_seeds,
        memory: 400,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "table",
        what: "objects of every kind as rows",
        run: rows,
        seeds: kind_seeds,
        memory: 3000,
        nests: JSON,
        depth: DEEP,
    },
];

/// Objects that use much of the language: what upstream's own tests hold beside the codec's.
pub const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"b","labels":{"c":"d"},"annotations":{"e":"f"},
"creationTimestamp":"2026-01-02T03:04:05Z","managedFields":[{"manager":"m","operation":"Apply","apiVersion":"v1",
"fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:containers":{"k:{\"name\":\"x\"}":{".":{},"f:image":{}}}}}}]},
"spec":{"containers":[{"name":"x","image":"i:1","ports":[{"containerPort":80,"protocol":"TCP"}],"env":[{"name":"A","value":"B"}],
"resources":{"limits":{"cpu":"1500m","memory":"64Mi"}},"livenessProbe":{"httpGet":{"path":"/","port":"web"},"periodSeconds":3}}],
"volumes":[{"name":"v","configMap":{"name":"c","defaultMode":420}}],"tolerations":[{"operator":"Exists"}],
"affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"h","labelSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}}]}}}}"#;
const SERVICE: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":[{"port":80,"targetPort":"web","nodePort":30080}],"selector":{"a":"b"},"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"externalIPs":["1.2.3.4"],"sessionAffinity":"ClientIP"}}"#;
const CRON: &str = r#"{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"c"},"spec":{"schedule":"*/5 1-3 * * MON","timeZone":"Europe/Berlin","jobTemplate":{"spec":{"completions":2,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}"#;
const DEPLOYMENT: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":3,"selector":{"matchLabels":{"a":"b"}},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
const ROLE: &str = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"],"resourceNames":["a"]}]}"#;
const CRD: &str = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"as.example.com"},"spec":{"group":"example.com","names":{"kind":"A","plural":"as","listKind":"AList","singular":"a"},"scope":"Namespaced","versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{},"scale":{"specReplicasPath":".spec.n","statusReplicasPath":".status.n"}},"additionalPrinterColumns":[{"name":"N","type":"integer","jsonPath":".spec.n"}],"selectableFields":[{"jsonPath":".spec.s"}],"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","required":["n"],"properties":{"n":{"type":"integer","minimum":0,"default":1},"s":{"type":"string","pattern":"^a+$","maxLength":9},"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"}}}},"m":{"type":"object","additionalProperties":{"x-kubernetes-int-or-string":true}},"e":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}}}}}}}]}}"#;

fn samples() -> [&'static str; 6] {
    [POD, SERVICE, CRON, DEPLOYMENT, ROLE, CRD]
}

fn bodies() -> Vec<Vec<u8>> {
    texts(&samples())
}

fn yamls() -> Vec<Vec<u8>> {
    let blocks =
        samples().into_iter().filter_map(|text| serde_json::from_str(text).ok()).map(|v: Value| yaml::encode(&v));
    let mut all: Vec<Vec<u8>> = blocks.map(String::into_bytes).collect();
    all.extend(texts(&[
        "a: &x [1, *x]\nb: *x\n",
        "a: 1\na: 2\n",
        "a: !!binary aGk=\nb: ~\nc: 0o17\nd: .inf\n",
        "--- # c\na: |2\n  x\n...\n",
        "<<: {a: 1}\n",
    ]));
    all
}

fn kind_of(sample: &Value) -> Option<&'static KindRef> {
    let (group, version) = meta::gvk::split_api_version(sample["apiVersion"].as_str()?);
    kinds::by_kind(group, version, sample["kind"].as_str()?)
}

/// A kind by the first byte of an input, and the rest of it.
fn chosen(input: &[u8]) -> Option<(&'static KindRef, &[u8])> {
    let (first, rest) = input.split_first()?;
    let named = value(rest).as_ref().and_then(kind_of);
    Some((named.or_else(|| kinds::ALL.get(usize::from(*first) % kinds::ALL.len()))?, rest))
}

/// What upstream's API server was asked when its answers were recorded: an object of nearly every kind.
const RECORDED: &str = include_str!("../../../../api/kinds/tests/it/cases/create.jsonl");

fn kind_seeds() -> Vec<Vec<u8>> {
    let recorded = RECORDED.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let recorded = recorded.map(|case| case["object"].to_string());
    let all = samples().into_iter().map(str::to_owned).chain(recorded);
    all.map(|text| [b"\0", text.as_bytes()].concat()).collect()
}

fn update_seeds() -> Vec<Vec<u8>> {
    kind_seeds().iter().map(|new| join(&[new, new.get(1..).unwrap_or_default()])).collect()
}

fn json(input: &[u8]) {
    for form in forms() {
        let Ok(decoded) = json::decode(input, form) else { continue };
        let written = serde_json::to_vec(&decoded.object).expect("a value can be written");
        let again = json::decode(&written, form).expect("what was read is read again");
        assert_eq!(again.object, decoded.object, "as it was");
        assert!(again.strict.len() <= decoded.strict.len(), "nothing new is wrong with it");
    }
}

fn forms() -> [Form; 3] {
    [types::find("io.k8s.api.core.v1.Pod").map_or(Form::Any, Form::Typed), Form::Custom, Form::Any]
}

fn yaml(input: &[u8]) {
    for form in forms() {
        let Ok(decoded) = yaml::decode(input, form) else { continue };
        let again = yaml::decode(yaml::encode(&decoded.object).as_bytes(), form).expect("what was written is read");
        assert_eq!(again.object, decoded.object, "as it was");
    }
}

fn protobufs() -> Vec<Vec<u8>> {
    kind_seeds().iter().filter_map(|seed| encode_object(&typed(seed.get(1..)?)?).ok()).collect()
}

/// A sample as the server holds it.
fn typed(body: &[u8]) -> Option<Value> {
    let kind = kind_of(&serde_json::from_slice(body).ok()?)?;
    json::decode(body, Form::Typed(kind.message?)).ok().map(|decoded| decoded.object)
}

fn protobuf(input: &[u8]) {
    let Ok((_, object)) = decode_object(input) else { return };
    let Ok(written) = encode_object(&object) else { return };
    let (_, again) = decode_object(&written).expect("what was written is read");
    // Protobuf has no null and no empty list: what was written tells them apart no more, and stays as it is.
    assert_eq!(encode_object(&again).expect("what was read is written"), written, "as it was");
}

fn message_seeds() -> Vec<Vec<u8>> {
    let seed = |seed: &Vec<u8>| {
        let object = typed(seed.get(1..)?)?;
        let id = kind_of(&object)?.message?;
        let number = u16::try_from(types::messages().iter().position(|m| m.name == types::message(id).name)?).ok()?;
        Some([&number.to_be_bytes()[..], &encode_value(&object, id).ok()?].concat())
    };
    kind_seeds().iter().filter_map(seed).collect()
}

fn messages(input: &[u8]) {
    let Some((number, rest)) = input.split_first_chunk() else { return };
    let all = types::messages();
    let Some(id) = types::find(&all[usize::from(u16::from_be_bytes(*number)) % all.len()].name) else { return };
    let Ok(object) = decode_message(rest, id) else { return };
    let Ok(written) = encode_value(&object, id) else { return };
    let again = decode_message(&written, id).expect("what was written is read");
    assert_eq!(encode_value(&again, id).expect("what was read is written"), written, "as it was");
}

/// An object of a kind, as far as admission gets it.
fn admitted(kind: &Kind, body: &[u8]) -> Option<Value> {
    let mut object = json::decode(body, Form::Typed(kind.message?)).ok()?.object;
    object.is_object().then_some(())?;
    kind.apply_defaults(&mut object);
    Some(object)
}

fn every_kind(input: &[u8]) {
    let Some((kind, body)) = chosen(input) else { return };
    let Some(mut object) = admitted(kind, body) else { return };
    let mut again = object.clone();
    kind.apply_defaults(&mut again);
    assert_eq!(again, object, "defaults are complete at once");
    let context = Context::at(Timestamp::UNIX_EPOCH);
    kind.prepare_create(&mut object, &context);
    let _ = (kind.hooks.warnings)(&object, None);
    let _ = kinds::unenforced::warnings(kind, &object);
    let errors = kind.check(&object);
    for selectable in &kind.selectable {
        let _ = selectable.value(&object);
    }
    if let (true, Some(id)) = (errors.is_empty(), kind.message) {
        assert!(encode_value(&object, id).is_ok(), "what is accepted can be written in protobuf");
    }
}

fn updates(input: &[u8]) {
    let [new, old] = parts(input);
    let Some((kind, new)) = chosen(new) else { return };
    let (Some(mut new), Some(old)) = (admitted(kind, new), admitted(kind, old)) else { return };
    let context = Context::at(Timestamp::UNIX_EPOCH);
    for sub in &kind.subresources {
        let mut status = new.clone();
        kind.prepare_subresource(sub, &mut status, &old, &context);
        let _ = kind.check_subresource(sub, &status, &old);
    }
    kind.prepare_update(&mut new, &old, &context);
    let _ = kind.check(&new);
    let _ = kind.check_update(&new, &old);
    let _ = (kind.hooks.warnings)(&new, Some(&old));
}

fn crds() -> Vec<Vec<u8>> {
    texts(&[CRD])
}

fn crd(input: &[u8]) {
    let Some(mut definition) = value(input).filter(Value::is_object) else { return };
    let errors = apiserver::crd::validate::definition(&definition, None);
    definition["status"] = apiserver::crd::status::settled(&definition, None, "2026-01-02T03:04:05Z");
    // A stored definition that later rules would refuse must not stop the server.
    let outline = apiserver::crd::outline::Outline::read(definition.to_string().into());
    let outline = outline.map(|outline| apiserver::crd::convert::versions(&outline, "/registry/", &Arc::default()));
    let versions = outline.unwrap_or_default();
    if errors.is_empty() {
        assert!(!versions.is_empty(), "what is accepted has a version");
    }
    for version in versions.iter().take(4) {
        let sample = object!({"apiVersion": "example.com/v1", "kind": "A", "metadata": {"name": "a"}, "spec": {}});
        let _ = row(&version.kind, &sample, Include::Metadata, Timestamp::UNIX_EPOCH);
        let _ = schema::openapi::definition(&version.source.published(), schema::openapi::Version::V2);
    }
}

fn schemas() -> Vec<Vec<u8>> {
    let definition: Value = serde_json::from_str(CRD).unwrap_or_default();
    let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].to_string();
    let objects = [
        r#"{"spec":{"n":null,"s":"b","l":[{"k":"a"},{"k":"a"}],"m":{"x":1},"x":1,"e":{"kind":"K","apiVersion":"v1","y":2}}}"#,
        "{}",
    ];
    objects.iter().map(|o| join(&[schema.as_bytes(), o.as_bytes()])).collect()
}

fn structural(input: &[u8]) {
    let [source, body] = parts(input);
    let (Some(source), Some(mut object)) = (value(source), value(body)) else { return };
    let sound = schema::structural::check(&source, "schema").is_empty();
    let schema = parse::schema(&source);
    schema::drop_nulls(&mut object, &schema);
    schema::prune(&mut object, &schema);
    let mut again = object.clone();
    schema::prune(&mut again, &schema);
    assert_eq!(again, object, "pruned once is pruned");
    assert!(schema::unknown_fields(&object, &schema).is_empty(), "what is left is known");
    if schema::apply_defaults(&mut object, &schema).is_err() {
        return;
    }
    again.clone_from(&object);
    let complete = schema::apply_defaults(&mut again, &schema);
    if sound && complete.is_ok() {
        assert_eq!(again, object, "defaults are complete at once");
    }
    let budget = schema::Budget::default;
    let wrong = schema::validate(&object, None, &schema, &mut budget());
    let same = schema::validate(&object, Some(&object), &schema, &mut budget());
    if wrong.len() < schema::MAX_ERRORS {
        assert!(same.iter().all(|error| wrong.contains(error)), "an update is forgiven, never more is wrong with it");
    }
    let _ = schema::openapi::definition(&schema, schema::openapi::Version::V3);
}

fn path_seeds() -> Vec<Vec<u8>> {
    let paths = [
        ".metadata.labels.c",
        ".spec.containers[*].image",
        ".spec.containers[0]",
        ".spec.containers[?(@.name=='x')].image",
        "..image",
        ".metadata['name']",
        "{.spec}",
        ".a\\.b",
    ];
    paths.iter().map(|path| join(&[path.as_bytes(), POD.as_bytes()])).collect()
}

fn paths(input: &[u8]) {
    let [path, body] = parts(input);
    let Some(object) = value(body) else { return };
    let _ = jsonpath(&object, &text(path));
}

fn rows(input: &[u8]) {
    let Some((kind, body)) = chosen(input) else { return };
    // A row is made of what is stored, which an older or newer server may have written.
    let Some(object) = value(body) else { return };
    let row = row(kind, &object, Include::Metadata, Timestamp::UNIX_EPOCH);
    if let (Some(cells), false) = (row["cells"].as_array(), kind.columns.is_empty()) {
        assert_eq!(cells.len(), kind.columns.len(), "{}: a cell a column", kind.kind);
    }
    let _ = Selector::from_object(object.pointer("/spec/selector"));
}
