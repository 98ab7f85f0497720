//! Objects go into protobuf and come back the same.

use super::*;
use serde_json::json;

use crate::proto::decode_message;

fn round_trip(object: Value) {
    let bytes = encode_object(&object).unwrap();
    let (envelope, back) = decode_object(&bytes).unwrap();
    assert_eq!(back, object);
    let (group, version) = split_api_version(&envelope.api_version);
    let id = message_of_kind(group, version, &envelope.kind).unwrap();
    assert_eq!(super::super::encode_bytes(object.to_string().as_bytes(), id).unwrap(), envelope.raw);
}

#[test]
fn objects_survive_the_round_trip() {
    round_trip(json!({"apiVersion": "v1", "kind": "Pod", "status": {},
        "metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"x": "", "y": "1"},
            "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {".": {}}}}]},
        "spec": {"terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}, {"name": "e", "emptyDir": {}}],
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": -1},
                "securityContext": {"runAsUser": 0, "privileged": false}}]}}));
    round_trip(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"a": "AAH/", "b": ""}}));
    round_trip(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {},
        "spec": {"renewTime": "2026-01-02T03:04:05.000006Z", "leaseTransitions": 0}}));
    round_trip(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": {"user": {"extra": {"k": ["a", "b"], "none": []}}}}));
    round_trip(json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404}));
}

#[test]
fn schemas_of_custom_resources_survive() {
    round_trip(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {},
        "status": {"acceptedNames": {"plural": "", "kind": ""}, "conditions": null, "storedVersions": null},
        "spec": {"group": "g", "scope": "Cluster", "names": {"plural": "xs", "kind": "X"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "maximum": 1.5, "properties": {
                    "a": {"items": {"type": "string"}, "default": ["x"], "enum": [1, "a"]},
                    "b": {"additionalProperties": {"type": "integer"}, "x-kubernetes-preserve-unknown-fields": false},
                    "c": {"additionalProperties": false}, "d": {"additionalProperties": true}}}}}]}}));
}

#[test]
fn tables_and_custom_resources_have_no_protobuf() {
    for kind in ["Table", "Whatever"] {
        let object = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
        assert!(matches!(encode_object(&object), Err(EncodeError::NotMarshalable { .. })));
    }
}

#[test]
fn broken_bodies_are_refused() {
    assert!(matches!(open(b"{}"), Err(DecodeError::Syntax(_))));
    let good = encode_object(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "abc"}})).unwrap();
    for cut in MAGIC.len() + 1..good.len() - 4 {
        let _ = decode_object(&good[..cut]);
    }
    let unknown = wrap("nope/v9", "Nope", b"");
    assert!(matches!(decode_object(&unknown), Err(DecodeError::UnknownKind { .. })));
}

#[test]
fn endless_nesting_ends() {
    let mut message = Vec::new();
    for _ in 0..5_000 {
        let mut outer = Vec::new();
        put_bytes(&mut outer, 28, &message);
        message = outer;
    }
    let id = kinds::types::find("apiextensions.v1.JSONSchemaProps").unwrap();
    assert!(matches!(decode_message(&message, id), Err(DecodeError::Syntax(_))));
}

#[test]
fn lists_and_frames_are_made_of_encoded_items() {
    let item = json!({"metadata": {"name": "a"}});
    let id = message_of_kind("", "v1", "ConfigMap").unwrap();
    let item = encode_value(&item, id).unwrap();
    let meta = encode_value(&json!({"resourceVersion": "7"}), kinds::types::find("meta.v1.ListMeta").unwrap()).unwrap();
    let bytes = list("v1", "ConfigMapList", &meta, [item.as_slice(), item.as_slice()].into_iter());
    let (_, object) = decode_object(&bytes).unwrap();
    assert_eq!(object["metadata"]["resourceVersion"], "7");
    assert_eq!(object["items"][1]["metadata"]["name"], "a");

    let frame = watch_frame("ADDED", &wrap("v1", "ConfigMap", &item));
    assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
    let event = decode_message(&frame[4..], kinds::types::find("meta.v1.WatchEvent").unwrap()).unwrap();
    assert_eq!(event["object"]["kind"], "ConfigMap");
}
