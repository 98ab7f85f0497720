//! The normal form of an object: what upstream's decode into Go structs and encode again makes of it. Nulls and zero
//! values of optional fields vanish, structs and fields that Go always writes appear, quantities and times get their
//! canonical text. Stored objects are in normal form, so equal objects are equal values.

use meta::Quantity;
use serde_json::{Map, Value};

use crate::types::{self, Field, MessageId, Scalar, Shape};

/// Brings an object of type `id` into normal form, dropping fields that the type does not have. Used after patches and
/// admission, which work on values; decoding yields normal form by itself. A value of the wrong type is left as it is.
pub fn normalize(object: &mut Value, id: MessageId) {
    if let Value::Object(map) = object {
        normalize_message(map, id);
    }
}

/// Brings the metadata of an object without a table type (a custom resource) into normal form.
pub fn normalize_metadata(object: &mut Value) {
    if let (Some(Value::Object(map)), Some(id)) = (object.get_mut("metadata"), object_meta()) {
        normalize_message(map, id);
    }
}

/// The type of `metadata`.
pub fn object_meta() -> Option<MessageId> {
    types::find("meta.v1.ObjectMeta")
}

fn normalize_message(map: &mut Map<String, Value>, id: MessageId) {
    let message = types::message(id);
    map.retain(|key, value| match message.field(key) {
        Some(field) => {
            normalize_field(value, field);
            !left_out(value, field)
        }
        None => message.is_kind && matches!(key.as_str(), "apiVersion" | "kind"),
    });
    fill(map, id);
}

fn normalize_field(value: &mut Value, field: &Field) {
    match (field.shape, value) {
        (Shape::One, value) => normalize_scalar(value, field.scalar),
        (Shape::List | Shape::WrappedList, Value::Array(list)) => {
            list.iter_mut().for_each(|v| normalize_element(v, field.scalar));
        }
        (Shape::Map, Value::Object(map)) => map.values_mut().for_each(|v| normalize_element(v, field.scalar)),
        _ => {}
    }
}

/// An element of a list or map cannot be absent: null is the zero value there.
fn normalize_element(value: &mut Value, scalar: Scalar) {
    if value.is_null() {
        *value = zero(scalar);
    }
    normalize_scalar(value, scalar);
}

fn normalize_scalar(value: &mut Value, scalar: Scalar) {
    match (scalar, value) {
        (Scalar::Message(id), Value::Object(map)) => normalize_message(map, id),
        (Scalar::Quantity, value) => {
            let text = match &*value {
                Value::String(s) => s.clone(),
                Value::Number(n) => n.to_string(),
                _ => return,
            };
            if let Ok(canonical) = Quantity::canonical(text.trim()) {
                *value = canonical.into();
            }
        }
        (Scalar::Time, Value::String(s)) => replace(s, meta::time::canonical),
        (Scalar::MicroTime, Value::String(s)) => replace(s, meta::time::canonical_micro),
        (Scalar::SchemaOrArray, Value::Array(list)) => list.iter_mut().for_each(normalize_schema),
        (Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings, value) => normalize_schema(value),
        _ => {}
    }
}

fn replace(text: &mut String, canonical: fn(&str) -> Option<String>) {
    if let Some(better) = canonical(text) {
        *text = better;
    }
}

fn normalize_schema(value: &mut Value) {
    if let (Value::Object(map), Some(id)) = (value, types::find("apiextensions.v1.JSONSchemaProps")) {
        normalize_message(map, id);
    }
}

/// Whether Go leaves the field out when it holds this. A list or map that is always written is left out when it is empty
/// and then filled with null, for upstream stores objects as protobuf, which knows no difference.
pub fn left_out(value: &Value, field: &Field) -> bool {
    if field.always && !field.omit_zero {
        return match value {
            Value::Array(list) => list.is_empty() && field.shape != Shape::One,
            Value::Object(map) => map.is_empty() && field.shape != Shape::One,
            _ => false,
        };
    }
    match (field.shape, value) {
        (_, Value::Null) => !field.is_struct(),
        (Shape::One, value) if field.pointer || field.scalar == Scalar::RawExtension => value.is_null(),
        (Shape::One, value) => match field.scalar {
            Scalar::Message(_) => field.omit_zero && value.as_object().is_some_and(Map::is_empty),
            _ => is_zero(value),
        },
        (_, Value::Array(list)) => list.is_empty(),
        (_, Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        _ => false,
    }
}

/// Adds what Go writes although nobody set it.
pub fn fill(map: &mut Map<String, Value>, id: MessageId) {
    let message = types::message(id);
    for index in &message.filled {
        let field = &message.fields[usize::from(*index)];
        if map.get(field.name).is_none_or(|v| v.is_null() && field.is_struct()) {
            let value = if field.pointer || field.shape != Shape::One { Value::Null } else { zero(field.scalar) };
            map.insert(field.name.to_owned(), value);
        }
    }
}

/// The zero value of a type as Go writes it.
pub fn zero(scalar: Scalar) -> Value {
    match scalar {
        Scalar::String => "".into(),
        Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => 0.into(),
        Scalar::Bool => false.into(),
        Scalar::Quantity => "0".into(),
        Scalar::Message(id) => {
            let mut map = Map::new();
            fill(&mut map, id);
            Value::Object(map)
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn normal(name: &str, mut value: Value) -> Value {
        normalize(&mut value, types::find(name).unwrap());
        value
    }

    #[test]
    fn an_empty_list_that_is_always_written_is_null() {
        let role = normal("rbac.v1.Role", json!({"rules": []}));
        assert_eq!(role["rules"], Value::Null);
        assert!(role.as_object().is_some_and(|map| map.contains_key("rules")));
    }

    #[test]
    fn zero_values_vanish_and_structs_appear() {
        let pod = normal(
            "core.v1.Pod",
            json!({"kind": "Pod", "metadata": {"name": "a", "labels": {}, "annotations": null},
                "spec": {"hostNetwork": false, "nodeName": "", "foo": 1, "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}, null]}}),
        );
        assert_eq!(
            pod,
            json!({"kind": "Pod", "metadata": {"name": "a"}, "status": {}, "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
                    {"name": "", "resources": {}}]}})
        );
    }

    #[test]
    fn normal_form_is_stable() {
        let event = normal("core.v1.Event", json!({"metadata": {}, "message": ""}));
        assert_eq!(event["eventTime"], Value::Null);
        assert_eq!(event["reportingComponent"], "");
        assert_eq!(normal("core.v1.Event", event.clone()), event);
    }
}
