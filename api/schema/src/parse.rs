//! From `openAPIV3Schema` (JSONSchemaProps) to the tree.
//!
//! Reading never fails: the structural check reports what is wrong with a schema before it is accepted, and a
//! stored schema that later rules would refuse must still be readable.

use crate::node::{
    Declared, Docs, Field, ListType, MapType, Patch, PatchStrategy, Properties, Rule, Schema, SchemaRef, Type,
    Validation,
};
use crate::pattern::Pattern;
use meta::Str;
use serde_json::{Map, Value};

/// Reads the schema of a custom resource. `object_meta` becomes the schema of `metadata`, here and in every embedded
/// resource; limits that the schema puts on `metadata.name` and `generateName` are kept.
pub fn custom_resource(source: &Value, object_meta: &SchemaRef) -> Schema {
    resource(source, object_meta, true)
}

/// The same without the words for people, which are the most of it: what objects are judged by.
pub fn custom_resource_without_prose(source: &Value, object_meta: &SchemaRef) -> Schema {
    resource(source, object_meta, false)
}

fn resource(source: &Value, object_meta: &SchemaRef, prose: bool) -> Schema {
    let mut schema = node(source, How { object_meta: Some(object_meta), prose });
    add_resource_fields(&mut schema, object_meta);
    schema
}

/// Reads a schema as it is.
pub fn schema(source: &Value) -> Schema {
    node(source, How { object_meta: None, prose: true })
}

/// How a schema is read: what metadata is, and whether descriptions and examples are kept.
#[derive(Clone, Copy)]
struct How<'a> {
    object_meta: Option<&'a SchemaRef>,
    prose: bool,
}

fn node(source: &Value, how: How<'_>) -> Schema {
    let Some(map) = source.as_object() else { return Schema::ANYTHING };
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let below = |value: &Value| SchemaRef::from(node(value, how));
    let mut out = Schema {
        format: text(map, "format").into(),
        nullable: flag("nullable"),
        default: map.get("default").filter(|v| !v.is_null()).cloned(),
        additional: match map.get("additionalProperties") {
            // `true` admits any value, but objects in there are still pruned to nothing.
            Some(Value::Bool(true)) => Some(Schema::of(Type::Any).into()),
            Some(values @ Value::Object(_)) => Some(below(values)),
            _ => None,
        },
        items: map.get("items").filter(|v| v.is_object()).map(below),
        required: strings(map, "required"),
        list_map_keys: strings(map, "x-kubernetes-list-map-keys"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        declared: Declared {
            list_type: map.contains_key("x-kubernetes-list-type"),
            map_type: map.contains_key("x-kubernetes-map-type"),
        },
        validation: validation(map),
        docs: how.prose.then(|| docs(map)).flatten(),
        ..Schema::of(node_type(map))
    };
    out.list_type = match text(map, "x-kubernetes-list-type").as_str() {
        "set" => ListType::Set,
        "map" => ListType::Map,
        _ => ListType::Atomic,
    };
    if text(map, "x-kubernetes-map-type") == "atomic" {
        out.map_type = MapType::Atomic;
    }
    out.properties = properties(map, &out.required, &below);
    if let (true, Some(object_meta)) = (out.embedded_resource, how.object_meta) {
        add_resource_fields(&mut out, object_meta);
    }
    out
}

fn node_type(map: &Map<String, Value>) -> Type {
    if map.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) {
        return Type::IntOrString;
    }
    match text(map, "type").as_str() {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        _ => Type::Any,
    }
}

fn properties(map: &Map<String, Value>, required: &[Str], below: &impl Fn(&Value) -> SchemaRef) -> Properties {
    let declared = map.get("properties").and_then(Value::as_object);
    declared
        .into_iter()
        .flatten()
        .map(|(name, source)| {
            let required = required.iter().any(|r| r == name);
            (Str::Owned(name.clone()), Field { required, patch: patch(source), ..Field::new(below(source)) })
        })
        .collect()
}

/// Strategic-merge extensions, which published documents of built-in kinds carry.
fn patch(source: &Value) -> Patch {
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
    let strategy = text("x-kubernetes-patch-strategy");
    let has = |word: &str| strategy.split(',').any(|part| part == word);
    Patch {
        strategy: match () {
            () if has("merge") => PatchStrategy::Merge,
            () if has("replace") => PatchStrategy::Replace,
            () => PatchStrategy::None,
        },
        retain_keys: has("retainKeys"),
        merge_key: Some(text("x-kubernetes-patch-merge-key"))
            .filter(|k| !k.is_empty())
            .map(|k| Str::Owned(k.to_owned())),
    }
}

/// Gives an object apiVersion, kind and metadata.
fn add_resource_fields(schema: &mut Schema, object_meta: &SchemaRef) {
    for name in ["apiVersion", "kind"] {
        if schema.properties.get(name).is_none() {
            schema.properties.insert(Str::Borrowed(name), Field::new(Schema::string()));
        }
    }
    let limits = schema.properties.get("metadata").map(|f| f.schema.clone());
    let metadata = match limits {
        Some(limits) if !limits.properties.is_empty() => limited_meta(object_meta, &limits),
        _ => object_meta.clone(),
    };
    schema.properties.insert(Str::Borrowed("metadata"), Field::new(metadata));
}

/// ObjectMeta with the limits of a custom resource on its names.
fn limited_meta(object_meta: &SchemaRef, limits: &Schema) -> SchemaRef {
    let mut metadata = (**object_meta).clone();
    for name in ["name", "generateName"] {
        if let (Some(field), Some(limit)) = (metadata.properties.get_mut(name), limits.properties.get(name)) {
            let node = Schema { validation: limit.schema.validation.clone(), ..(*field.schema).clone() };
            field.schema = node.into();
        }
    }
    metadata.required = limits.required.clone();
    metadata.name = None;
    metadata.into()
}

fn validation(map: &Map<String, Value>) -> Option<Box<Validation>> {
    let number = |key: &str| map.get(key).and_then(Value::as_number).cloned();
    let count = |key: &str| map.get(key).and_then(Value::as_u64);
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let list = |key: &str| map.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let nodes = |key: &str| list(key).iter().map(schema).collect::<Vec<_>>();
    let out = Validation {
        enumeration: list("enum").to_vec(),
        minimum: number("minimum"),
        maximum: number("maximum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        pattern: map.get("pattern").and_then(Value::as_str).filter(|p| !p.is_empty()).map(Pattern::new),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        unique_items: flag("uniqueItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        all_of: nodes("allOf"),
        any_of: nodes("anyOf"),
        one_of: nodes("oneOf"),
        not: map.get("not").filter(|n| n.is_object()).map(|n| Box::new(schema(n))),
        rules: list("x-kubernetes-validations").iter().map(rule).collect(),
    };
    (!out.is_empty()).then(|| Box::new(out))
}

fn rule(source: &Value) -> Rule {
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Rule {
        rule: text("rule"),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: text("reason"),
        field_path: text("fieldPath"),
        optional_old_self: source.get("optionalOldSelf").and_then(Value::as_bool),
    }
}

fn docs(map: &Map<String, Value>) -> Option<Box<Docs>> {
    let out = Docs {
        description: text(map, "description").into(),
        title: text(map, "title"),
        example: map.get("example").cloned(),
        external_docs: map.get("externalDocs").cloned(),
    };
    let empty =
        out.description.is_empty() && out.title.is_empty() && out.example.is_none() && out.external_docs.is_none();
    (!empty).then(|| Box::new(out))
}

fn text(map: &Map<String, Value>, key: &str) -> String {
    map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn strings(map: &Map<String, Value>, key: &str) -> Vec<Str> {
    let list = map.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(|s| Str::Owned(s.to_owned())).collect()
}
