//! Schemas as OpenAPI writes them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use meta::Gvk;
use schema::{ListType, MapType, PatchStrategy, Schema, Type, Validation};
use serde_json::{Map, Value, json};

use super::paths::{Body, PathItem, definition};
use crate::registry::Registry;

/// Which OpenAPI is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> Value {
        match self {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    /// A reference beside other facts: v3 allows none next to `$ref`.
    fn property_reference(self, name: &str) -> Value {
        match self {
            Dialect::V2 => self.reference(name),
            Dialect::V3 => json!({"allOf": [self.reference(name)]}),
        }
    }
}

/// Definitions that the paths refer to, directly or through others, by name.
pub fn used(registry: &Registry, items: &[PathItem], dialect: Dialect) -> BTreeMap<String, Value> {
    let mut writer = Writer { dialect, wanted: BTreeSet::new() };
    for operation in items.iter().flat_map(|item| &item.operations) {
        for body in [&operation.body, &operation.answer] {
            if let Body::Definition(name) = body {
                writer.wanted.insert(name.clone());
            }
        }
    }
    let mut custom: BTreeMap<String, Value> = BTreeMap::new();
    for served in registry.iter().filter(|served| served.custom) {
        let name = definition(&served.kind);
        if !writer.wanted.contains(&name) {
            continue;
        }
        let mut root = writer.schema(&served.kind.schema, true);
        root["x-kubernetes-group-version-kind"] = json!([gvk(&served.kind.gvk())]);
        custom.insert(name.clone(), root);
        let list = writer.list(&served.kind, &name);
        let list_name = name.strip_suffix(&*served.kind.kind).unwrap_or(&name).to_owned() + &served.kind.list_kind;
        custom.insert(list_name, list);
    }
    let builtin: BTreeMap<&str, &Schema> = kinds::definitions::all().collect();
    let mut done: BTreeMap<String, Value> = custom;
    while let Some(name) = writer.wanted.iter().find(|name| !done.contains_key(*name)).cloned() {
        let value = match builtin.get(name.as_str()) {
            Some(schema) => writer.schema(schema, true),
            None => json!({"type": "object"}),
        };
        done.insert(name, value);
    }
    done
}

fn gvk(gvk: &Gvk) -> Value {
    json!({"group": gvk.group, "kind": gvk.kind, "version": gvk.version})
}

struct Writer {
    dialect: Dialect,
    wanted: BTreeSet<String>,
}

impl Writer {
    fn list(&mut self, kind: &kinds::Kind, item: &str) -> Value {
        let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
        self.wanted.insert(meta.to_owned());
        let list = Gvk { kind: kind.list_kind.clone(), ..kind.gvk() };
        json!({
            "type": "object", "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "items": {"type": "array", "items": self.dialect.reference(item)},
                "metadata": self.dialect.property_reference(meta),
            },
            "x-kubernetes-group-version-kind": [gvk(&list)],
        })
    }

    /// A schema in place, or a reference to the definition that it is; `root` writes the definition itself.
    fn schema(&mut self, schema: &Schema, root: bool) -> Value {
        if let Some(name) = schema.name.as_ref().filter(|_| !root) {
            self.wanted.insert(name.to_string());
            return self.dialect.reference(name);
        }
        let mut out = Map::new();
        self.write_type(schema, &mut out);
        if !schema.description().is_empty() {
            out.insert("description".to_owned(), schema.description().into());
        }
        if !schema.properties.is_empty() {
            let mut properties = Map::new();
            for (name, field) in schema.properties.iter() {
                let mut value = match &field.schema.name {
                    Some(name) => {
                        self.wanted.insert(name.to_string());
                        self.dialect.property_reference(name)
                    }
                    None => self.schema(&field.schema, false),
                };
                self.write_use(field, &mut value);
                properties.insert(name.to_string(), value);
            }
            out.insert("properties".to_owned(), properties.into());
        }
        if let Some(items) = &schema.items {
            out.insert("items".to_owned(), self.schema(items, false));
        }
        if let Some(additional) = &schema.additional {
            out.insert("additionalProperties".to_owned(), self.schema(additional, false));
        }
        if !schema.required.is_empty() {
            out.insert("required".to_owned(), json!(schema.required));
        }
        self.write_extensions(schema, &mut out);
        if let Some(validation) = &schema.validation {
            self.write_validation(validation, &mut out);
        }
        out.into()
    }

    fn write_type(&self, schema: &Schema, out: &mut Map<String, Value>) {
        let word = match schema.ty {
            Type::Any => None,
            Type::Object => Some("object"),
            Type::Array => Some("array"),
            Type::String => Some("string"),
            Type::Integer => Some("integer"),
            Type::Number => Some("number"),
            Type::Boolean => Some("boolean"),
            Type::IntOrString if schema.name.is_some() && self.dialect == Dialect::V2 => Some("string"),
            Type::IntOrString => None,
        };
        if let Some(word) = word {
            out.insert("type".to_owned(), word.into());
        }
        if schema.ty == Type::IntOrString && schema.name.is_some() && self.dialect == Dialect::V3 {
            out.insert("oneOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
        } else if schema.ty == Type::IntOrString && schema.name.is_none() {
            out.insert("x-kubernetes-int-or-string".to_owned(), true.into());
        }
        if !schema.format.is_empty() && (schema.ty != Type::IntOrString || schema.name.is_some()) {
            out.insert("format".to_owned(), schema.format.as_ref().into());
        }
        if schema.nullable && self.dialect == Dialect::V3 {
            out.insert("nullable".to_owned(), true.into());
        }
    }

    /// What holds for one use of a schema.
    fn write_use(&self, field: &schema::Field, value: &mut Value) {
        if !field.description.is_empty() {
            value["description"] = field.description.as_ref().into();
        }
        if let Some(default) = field.default.as_ref().or(field.schema.default.as_ref()) {
            value["default"] = default.clone();
        }
        let mut strategy = Vec::new();
        match field.patch.strategy {
            PatchStrategy::Merge => strategy.push("merge"),
            PatchStrategy::Replace => strategy.push("replace"),
            PatchStrategy::None => {}
        }
        if field.patch.retain_keys {
            strategy.push("retainKeys");
        }
        if !strategy.is_empty() {
            value["x-kubernetes-patch-strategy"] = strategy.join(",").into();
        }
        if let Some(key) = &field.patch.merge_key {
            value["x-kubernetes-patch-merge-key"] = key.as_ref().into();
        }
    }

    fn write_extensions(&self, schema: &Schema, out: &mut Map<String, Value>) {
        if schema.declared.list_type {
            let word = match schema.list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            out.insert("x-kubernetes-list-type".to_owned(), word.into());
        }
        if !schema.list_map_keys.is_empty() {
            out.insert("x-kubernetes-list-map-keys".to_owned(), json!(schema.list_map_keys));
        }
        if schema.declared.map_type {
            let word = if schema.map_type == MapType::Atomic { "atomic" } else { "granular" };
            out.insert("x-kubernetes-map-type".to_owned(), word.into());
        }
        if schema.preserve_unknown && schema.ty != Type::Any {
            out.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
        }
        if schema.embedded_resource {
            out.insert("x-kubernetes-embedded-resource".to_owned(), true.into());
        }
        if !schema.kinds.is_empty() {
            out.insert("x-kubernetes-group-version-kind".to_owned(), schema.kinds.iter().map(gvk).collect());
        }
    }

    fn write_validation(&mut self, rules: &Validation, out: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                out.insert(name.to_owned(), value);
            }
        };
        put("minimum", json!(rules.minimum));
        put("maximum", json!(rules.maximum));
        put("multipleOf", json!(rules.multiple_of));
        put("minLength", json!(rules.min_length));
        put("maxLength", json!(rules.max_length));
        put("minItems", json!(rules.min_items));
        put("maxItems", json!(rules.max_items));
        put("minProperties", json!(rules.min_properties));
        put("maxProperties", json!(rules.max_properties));
        put("pattern", json!(rules.pattern.as_ref().map(|pattern| pattern.as_str())));
        if !rules.enumeration.is_empty() {
            put("enum", json!(rules.enumeration));
        }
        for (name, set) in [
            ("exclusiveMinimum", rules.exclusive_minimum),
            ("exclusiveMaximum", rules.exclusive_maximum),
            ("uniqueItems", rules.unique_items),
        ] {
            if set {
                put(name, true.into());
            }
        }
        if !rules.rules.is_empty() {
            put("x-kubernetes-validations", rules.rules.iter().map(rule).collect());
        }
        if self.dialect == Dialect::V2 {
            return;
        }
        let combinations = [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)];
        for (name, list) in combinations {
            if !list.is_empty() {
                let list: Vec<Value> = list.iter().map(|schema| self.schema(schema, false)).collect();
                out.insert(name.to_owned(), list.into());
            }
        }
        if let Some(not) = &rules.not {
            let not = self.schema(not, false);
            out.insert("not".to_owned(), not);
        }
    }
}

fn rule(rule: &schema::Rule) -> Value {
    let mut out = json!({"rule": rule.rule});
    let texts = [
        ("message", &rule.message),
        ("messageExpression", &rule.message_expression),
        ("reason", &rule.reason),
        ("fieldPath", &rule.field_path),
    ];
    for (name, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        out[*name] = text.as_str().into();
    }
    if let Some(optional) = rule.optional_old_self {
        out["optionalOldSelf"] = optional.into();
    }
    out
}
