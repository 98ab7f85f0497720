//! Schemas as OpenAPI documents publish them, in version 2 (one document) and version 3 (one a group version).
//!
//! A node with a name is published once, as a definition, and referred to everywhere else. Version 2 cannot say all
//! that a custom resource says: combinations, defaults and null are left out there, as upstream leaves them out.

use crate::node::{Docs, Field, ListType, MapType, PatchStrategy, Rule, Schema, Type, Validation};
use meta::Gvk;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which OpenAPI a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One document of Swagger 2.0, `/openapi/v2`: for older clients.
    V2,
    /// OpenAPI 3.0, a document a group and version, below `/openapi/v3`.
    V3,
}

impl Version {
    /// The address of a definition inside a document.
    pub fn reference(self, name: &str) -> String {
        match self {
            Version::V2 => format!("#/definitions/{name}"),
            Version::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

type Object = Map<String, Value>;

/// The body of a definition: the node itself, with references to other named nodes.
pub fn definition(schema: &Schema, version: Version) -> Value {
    Value::Object(body(schema, version))
}

/// The node as it stands inside another: a reference if it has a name, else its body.
pub fn node(schema: &Schema, version: Version) -> Value {
    match &schema.name {
        Some(name) => json!({"$ref": version.reference(name)}),
        None => definition(schema, version),
    }
}

/// Adds every named node that a schema refers to, directly or not, to `found`.
pub fn referenced<'a>(schema: &'a Schema, found: &mut BTreeMap<&'a str, &'a Schema>) {
    let below = schema.properties.iter().map(|(_, field)| &field.schema);
    for child in below.chain(&schema.additional).chain(&schema.items) {
        let child: &'a Schema = child;
        match &child.name {
            Some(name) if found.contains_key(name.as_ref()) => {}
            Some(name) => {
                found.insert(name, child);
                referenced(child, found);
            }
            None => referenced(child, found),
        }
    }
}

/// A field that is a named definition, and what is said of it.
pub fn reference(version: Version, name: &str, description: &str) -> Value {
    let mut out = reference_with(version, name, Object::new());
    out.insert("description".to_owned(), json!(description));
    out.into()
}

/// The definition of the list of a custom resource, but for its apiVersion, kind and metadata: `item` is the name of
/// the resource's definition.
pub fn list_definition(kind: &str, plural: &str, list: &Gvk, item: &str, version: Version) -> Value {
    json!({
        "description": format!("{} is a list of {kind}", list.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {
                "description": format!("List of {plural}."),
                "type": "array",
                "items": {"$ref": version.reference(item)},
            },
        },
        "x-kubernetes-group-version-kind": [gvk_value(list)],
    })
}

fn gvk_value(gvk: &Gvk) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn body(schema: &Schema, version: Version) -> Object {
    let mut out = Object::new();
    if let Some(docs) = schema.docs.as_deref() {
        write_docs(&mut out, docs);
    }
    let custom = schema.name.is_none();
    let open = schema.preserve_unknown && custom;
    // What version 2 cannot express, it leaves open: such a node says nothing about type and fields.
    let silent = version == Version::V2 && ((open && schema.kinds.is_empty()) || schema.nullable);
    if !silent {
        write_type(&mut out, schema, version);
        write_structure(&mut out, schema, version);
        if let Some(rules) = schema.validation.as_deref() {
            write_limits(&mut out, rules);
        }
    }
    if version == Version::V3 {
        write_v3_only(&mut out, schema);
    }
    write_extensions(&mut out, schema, open, silent);
    out
}

fn write_docs(out: &mut Object, docs: &Docs) {
    if !docs.description.is_empty() {
        out.insert("description".to_owned(), json!(docs.description));
    }
    if !docs.title.is_empty() {
        out.insert("title".to_owned(), json!(docs.title));
    }
    for (key, value) in [("example", &docs.example), ("externalDocs", &docs.external_docs)] {
        if let Some(value) = value {
            out.insert(key.to_owned(), value.clone());
        }
    }
}

fn write_type(out: &mut Object, schema: &Schema, version: Version) {
    let name = match schema.ty {
        Type::Any => return write_format(out, schema),
        Type::IntOrString => return write_int_or_string(out, schema, version),
        one => one.name(),
    };
    let quantity = schema.name.as_deref().is_some_and(|name| name.ends_with(".resource.Quantity"));
    if quantity && version == Version::V3 {
        out.insert("oneOf".to_owned(), json!([{"type": "string"}, {"type": "number"}]));
    } else {
        out.insert("type".to_owned(), json!(name));
    }
    write_format(out, schema);
}

fn write_format(out: &mut Object, schema: &Schema) {
    if !schema.format.is_empty() {
        out.insert("format".to_owned(), json!(schema.format));
    }
}

fn write_int_or_string(out: &mut Object, schema: &Schema, version: Version) {
    write_format(out, schema);
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    match (version, schema.name.is_some()) {
        (Version::V2, true) => out.insert("type".to_owned(), json!("string")),
        (Version::V3, true) => out.insert("oneOf".to_owned(), both),
        (Version::V3, false) => out.insert("anyOf".to_owned(), both),
        (Version::V2, false) => None,
    };
}

fn write_structure(out: &mut Object, schema: &Schema, version: Version) {
    let mut required: Vec<&str> = schema.required.iter().map(AsRef::as_ref).collect();
    if schema.embedded_resource {
        required.extend(["kind", "apiVersion"].iter().filter(|name| !schema.required.iter().any(|r| r == **name)));
    }
    if !required.is_empty() {
        out.insert("required".to_owned(), json!(required));
    }
    if !schema.properties.is_empty() {
        let fields = schema.properties.iter().map(|(name, field)| (name.to_string(), property(field, version)));
        out.insert("properties".to_owned(), Value::Object(fields.collect()));
    }
    if let Some(values) = schema.additional.as_deref() {
        let anything =
            values.ty == Type::Any && values.name.is_none() && !values.preserve_unknown && values.docs.is_none();
        let value = if anything { json!(true) } else { node(values, version) };
        out.insert("additionalProperties".to_owned(), value);
    }
    if let Some(items) = schema.items.as_deref() {
        out.insert("items".to_owned(), node(items, version));
    }
}

/// A field: its node, and beside it what holds for this use only.
fn property(field: &Field, version: Version) -> Value {
    let schema: &Schema = &field.schema;
    let mut beside = Object::new();
    if let Some(map_type) = field.map_type {
        beside.insert("x-kubernetes-map-type".to_owned(), json!(map_type_name(map_type)));
    }
    write_patch(&mut beside, field);
    if !field.description.is_empty() {
        beside.insert("description".to_owned(), json!(field.description));
    }
    if version == Version::V3
        && let Some(default) = default_of(field)
    {
        beside.insert("default".to_owned(), default);
    }
    let mut out = match &schema.name {
        Some(name) => reference_with(version, name, beside),
        None => {
            let mut out = body(schema, version);
            out.extend(beside);
            out
        }
    };
    out.retain(|_, value| !value.is_null());
    Value::Object(out)
}

/// What an absent field stands for: its default, or the zero of a field that is always there.
fn default_of(field: &Field) -> Option<Value> {
    if let Some(default) = &field.default {
        return Some(default.clone());
    }
    let schema: &Schema = &field.schema;
    match schema.ty {
        _ if !field.always => None,
        Type::Object if schema.name.is_some() && !schema.preserve_unknown => Some(json!({})),
        Type::String if schema.name.is_none() && schema.format.is_empty() => Some(json!("")),
        Type::Integer | Type::Number => Some(json!(0)),
        Type::Boolean => Some(json!(false)),
        _ => None,
    }
}

/// A reference; version 3 allows nothing beside one, so it goes into an `allOf`.
fn reference_with(version: Version, name: &str, mut beside: Object) -> Object {
    let reference = version.reference(name);
    match version {
        Version::V2 => beside.insert("$ref".to_owned(), json!(reference)),
        Version::V3 => beside.insert("allOf".to_owned(), json!([{"$ref": reference}])),
    };
    beside
}

fn write_patch(out: &mut Object, field: &Field) {
    let strategy = match (field.patch.strategy, field.patch.retain_keys) {
        (PatchStrategy::None, false) => return,
        (PatchStrategy::None, true) => "retainKeys",
        (PatchStrategy::Merge, false) => "merge",
        (PatchStrategy::Merge, true) => "merge,retainKeys",
        (PatchStrategy::Replace, _) => "replace",
    };
    out.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategy));
    if let Some(key) = &field.patch.merge_key {
        out.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
    }
}

fn write_limits(out: &mut Object, rules: &Validation) {
    if !rules.enumeration.is_empty() {
        out.insert("enum".to_owned(), Value::Array(rules.enumeration.clone()));
    }
    for (key, number) in [("minimum", &rules.minimum), ("maximum", &rules.maximum), ("multipleOf", &rules.multiple_of)]
    {
        if let Some(number) = number {
            out.insert(key.to_owned(), Value::Number(number.clone()));
        }
    }
    for (key, count) in [
        ("minLength", rules.min_length),
        ("maxLength", rules.max_length),
        ("minItems", rules.min_items),
        ("maxItems", rules.max_items),
        ("minProperties", rules.min_properties),
        ("maxProperties", rules.max_properties),
    ] {
        if let Some(count) = count {
            out.insert(key.to_owned(), json!(count));
        }
    }
    for (key, flag) in [
        ("exclusiveMinimum", rules.exclusive_minimum),
        ("exclusiveMaximum", rules.exclusive_maximum),
        ("uniqueItems", rules.unique_items),
    ] {
        if flag {
            out.insert(key.to_owned(), json!(true));
        }
    }
    if let Some(pattern) = &rules.pattern {
        out.insert("pattern".to_owned(), json!(pattern.as_str()));
    }
}

fn write_v3_only(out: &mut Object, schema: &Schema) {
    if schema.nullable {
        out.insert("nullable".to_owned(), json!(true));
    }
    if let Some(default) = &schema.default {
        out.insert("default".to_owned(), default.clone());
    }
    let Some(rules) = schema.validation.as_deref() else { return };
    for (key, branches) in [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)] {
        if !branches.is_empty() {
            let branches = branches.iter().map(|branch| definition(branch, Version::V3)).collect();
            out.insert(key.to_owned(), Value::Array(branches));
        }
    }
    if let Some(not) = rules.not.as_deref() {
        out.insert("not".to_owned(), definition(not, Version::V3));
    }
}

fn write_extensions(out: &mut Object, schema: &Schema, open: bool, silent: bool) {
    if open {
        out.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
    if schema.embedded_resource {
        out.insert("x-kubernetes-embedded-resource".to_owned(), json!(true));
    }
    if schema.ty == Type::IntOrString && schema.name.is_none() && !silent {
        out.insert("x-kubernetes-int-or-string".to_owned(), json!(true));
    }
    if schema.declared.list_type && !silent {
        let name = match schema.list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        out.insert("x-kubernetes-list-type".to_owned(), json!(name));
        if !schema.list_map_keys.is_empty() {
            out.insert("x-kubernetes-list-map-keys".to_owned(), json!(schema.list_map_keys));
        }
    }
    if schema.declared.map_type && !silent {
        out.insert("x-kubernetes-map-type".to_owned(), json!(map_type_name(schema.map_type)));
    }
    if let Some(rules) = schema.validation.as_deref().map(|v| &v.rules).filter(|rules| !rules.is_empty() && !silent) {
        out.insert("x-kubernetes-validations".to_owned(), Value::Array(rules.iter().map(rule_value).collect()));
    }
    if !schema.kinds.is_empty() {
        let kinds = schema.kinds.iter().map(gvk_value).collect();
        out.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(kinds));
    }
}

fn map_type_name(map_type: MapType) -> &'static str {
    match map_type {
        MapType::Granular => "granular",
        MapType::Atomic => "atomic",
    }
}

fn rule_value(rule: &Rule) -> Value {
    let mut out = Object::new();
    for (key, text) in [
        ("rule", &rule.rule),
        ("message", &rule.message),
        ("messageExpression", &rule.message_expression),
        ("reason", &rule.reason),
        ("fieldPath", &rule.field_path),
    ] {
        if !text.is_empty() {
            out.insert(key.to_owned(), json!(text));
        }
    }
    if let Some(flag) = rule.optional_old_self {
        out.insert("optionalOldSelf".to_owned(), json!(flag));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SchemaRef, parse};

    /// [source, version 2, version 3] a line, recorded from upstream.
    const UPSTREAM: &str = include_str!("upstream.json");

    fn object_meta() -> SchemaRef {
        Schema { name: Some("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta".into()), ..Schema::of(Type::Object) }
            .into()
    }

    fn without_prose(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let kept = map.iter().filter(|(key, value)| *key != "description" || !value.is_string());
                Value::Object(kept.map(|(key, value)| (key.clone(), without_prose(value))).collect())
            }
            Value::Array(list) => Value::Array(list.iter().map(without_prose).collect()),
            other => other.clone(),
        }
    }

    #[test]
    fn published_as_upstream_publishes() {
        let cases: Vec<[Value; 3]> = serde_json::from_str(UPSTREAM).expect("test data");
        for [source, v2, v3] in cases {
            let root = json!({"type": "object", "properties": {"f": source}});
            let schema = parse::custom_resource(&root, &object_meta());
            let field = &schema.properties.get("f").expect("field").schema;
            assert_eq!(without_prose(&node(field, Version::V2)), v2, "{source}");
            assert_eq!(without_prose(&node(field, Version::V3)), v3, "{source}");
        }
    }

    #[test]
    fn references_are_found_through_recursion() {
        static CELL: std::sync::OnceLock<Schema> = std::sync::OnceLock::new();
        let recursive = Schema {
            name: Some("io.example.Tree".into()),
            ..Schema::object([("child".into(), Field::new(SchemaRef::Static(&CELL)))])
        };
        CELL.set(recursive).expect("once");
        let mut found = BTreeMap::new();
        let list = Schema::list_of(SchemaRef::Static(&CELL));
        referenced(&list, &mut found);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&"io.example.Tree"]);
    }
}
