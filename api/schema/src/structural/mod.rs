//! Whether the schema of a CRD may be used at all: structural, with list and map types that make sense.
//!
//! A structural schema says of every place what it is, on its skeleton; what stands under `allOf`, `anyOf`, `oneOf` and
//! `not` may only narrow what the skeleton has. So pruning and defaulting walk the skeleton and never have to guess which
//! branch applies:
//!
//! ```text
//! properties:                       structural                     properties:            not structural
//!   port:                                                            port:
//!     type: integer    <- skeleton                                     anyOf:
//!     default: 80                                                      - type: integer    <- a type in a branch
//!     anyOf:                                                           - properties:      <- a field that the
//!     - minimum: 1024  <- narrows                                          name: {}          skeleton doesn't have
//!     - enum: [80]                                                     - default: 80      <- two branches, two defaults?
//! ```
//!
//! Each keyword has its place by that rule: `type`, `properties`, `items`, `additionalProperties`, `default`, `nullable`
//! and the `x-kubernetes-` extensions belong to the skeleton, bounds and formats to both. List keys must be scalars that
//! are required or have defaults, or two items could not be told apart.
//!
//! The server calls [`check`] on each `openAPIV3Schema` when a CRD is written. Works on the source document, so that
//! paths of errors are paths of the document.

use crate::validate::validate_at;
use crate::{Budget, Pattern, parse, prune};
use meta::{FieldError, Path};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Deepest nesting of a schema; documents come from outside and are walked recursively.
pub const MAX_DEPTH: usize = 64;

/// Everything wrong with a schema; `base` is the path of the schema in the CRD.
pub fn check(schema: &Value, base: &str) -> Vec<FieldError> {
    let mut checker = Checker { errors: Vec::new(), depth: 0, budget: Budget::default() };
    let path = Path::root(base);
    match schema.as_object() {
        Some(map) => checker.node(map, &path, Level::Root),
        None => checker.errors.push(FieldError::required(path, "schemas are required")),
    }
    checker.errors
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const UNSUPPORTED: [&str; 6] = ["$ref", "id", "definitions", "patternProperties", "dependencies", "additionalItems"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

type Object = Map<String, Value>;

fn text<'a>(map: &'a Object, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(map: &Object, key: &str) -> bool {
    map.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn list<'a>(map: &'a Object, key: &str) -> &'a [Value] {
    map.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn object<'a>(map: &'a Object, key: &str) -> Option<&'a Object> {
    map.get(key).and_then(Value::as_object)
}

struct Checker {
    errors: Vec<FieldError>,
    depth: usize,
    /// For the defaults, which are judged as values of their schemas.
    budget: Budget,
}

impl Checker {
    fn push(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    fn node(&mut self, map: &Object, path: &Path<'_>, level: Level) {
        if self.depth >= MAX_DEPTH {
            return self.push(FieldError::forbidden(path, format!("may not nest deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        self.type_of(map, path, level);
        self.keywords(map, path);
        self.extensions(map, path, level);
        self.list_type(map, path);
        self.map_type(map, path);
        self.rules(map, path);
        self.default(map, path);
        self.junctors(map, path);
        self.children(map, path);
        self.depth -= 1;
    }

    fn children(&mut self, map: &Object, path: &Path<'_>) {
        let properties = path.child("properties");
        for (name, child) in object(map, "properties").into_iter().flatten() {
            if let Some(child) = child.as_object() {
                self.node(child, &properties.key(name), Level::Field);
            }
        }
        if let Some(child) = object(map, "additionalProperties") {
            self.node(child, &path.child("additionalProperties"), Level::Field);
        }
        if let Some(child) = object(map, "items") {
            self.node(child, &path.child("items"), Level::Item);
        }
    }

    fn type_of(&mut self, map: &Object, path: &Path<'_>, level: Level) {
        let at = path.child("type");
        let ty = text(map, "type");
        let free = flag(map, "x-kubernetes-int-or-string") || flag(map, "x-kubernetes-preserve-unknown-fields");
        match (level, ty) {
            (Level::Root, "") => self.push(FieldError::required(at, "must not be empty at the root")),
            (_, "") if free => {}
            (Level::Item, "") => self.push(FieldError::required(at, "must not be empty for specified array items")),
            (_, "") => self.push(FieldError::required(at, "must not be empty for specified object fields")),
            _ if !TYPES.contains(&ty) => self.push(FieldError::not_supported(at, ty, TYPES)),
            (Level::Root, "object") => {}
            (Level::Root, _) => self.push(FieldError::invalid(at, ty, "must be object at the root")),
            _ => {}
        }
        match map.get("items") {
            Some(Value::Array(_)) => {
                let rule = "items must be a schema object and not an array";
                self.push(FieldError::forbidden(path.child("items"), rule));
            }
            None | Some(Value::Null) if ty == "array" => {
                self.push(FieldError::required(path.child("items"), "must be specified"));
            }
            _ => {}
        }
    }

    fn keywords(&mut self, map: &Object, path: &Path<'_>) {
        for key in UNSUPPORTED.iter().filter(|key| map.get(**key).is_some_and(|v| !v.is_null())) {
            self.push(FieldError::forbidden(path.child(key), format!("{key} is not supported")));
        }
        if flag(map, "uniqueItems") {
            let rule = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.push(FieldError::forbidden(path.child("uniqueItems"), rule));
        }
        let both = object(map, "properties").is_some_and(|p| !p.is_empty());
        if both && matches!(map.get("additionalProperties"), Some(Value::Object(_) | Value::Bool(_))) {
            let rule = "additionalProperties and properties are mutual exclusive";
            self.push(FieldError::forbidden(path.child("additionalProperties"), rule));
        }
        self.pattern(map, path);
    }

    fn pattern(&mut self, map: &Object, path: &Path<'_>) {
        let source = text(map, "pattern");
        if let Err(why) = Pattern::new(source).check() {
            let detail = format!("must be a valid regular expression, but isn't: {why}");
            self.push(FieldError::invalid(path.child("pattern"), source, detail));
        }
    }

    fn extensions(&mut self, map: &Object, path: &Path<'_>, level: Level) {
        if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.push(FieldError::invalid(at, false, "must be true or undefined"));
        }
        let embedded = flag(map, "x-kubernetes-embedded-resource");
        if embedded {
            if object(map, "properties").is_none_or(Map::is_empty) && !flag(map, "x-kubernetes-preserve-unknown-fields")
            {
                let rule = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.push(FieldError::required(path.child("properties"), rule));
            }
            let rule = "must be object if x-kubernetes-embedded-resource is true";
            match text(map, "type") {
                "object" => {}
                "" => self.push(FieldError::required(path.child("type"), rule)),
                ty => self.push(FieldError::invalid(path.child("type"), ty, rule)),
            }
        }
        if embedded || level == Level::Root {
            self.resource_fields(map, path);
        }
    }

    /// apiVersion, kind and metadata of a resource may be written down, but only as what they are.
    fn resource_fields(&mut self, map: &Object, path: &Path<'_>) {
        let Some(properties) = object(map, "properties") else { return };
        let at = path.child("properties");
        for (name, wanted) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            let Some(field) = object(properties, name) else { continue };
            let ty = text(field, "type");
            if ty != wanted {
                let place = at.key(name);
                self.push(FieldError::invalid(place.child("type"), ty, format!("must be {wanted}")));
            }
        }
        let Some(metadata) = object(properties, "metadata") else { return };
        let other = metadata.keys().any(|key| !matches!(key.as_str(), "type" | "description" | "title" | "properties"));
        let unknown = object(metadata, "properties").into_iter().flatten();
        if other || unknown.into_iter().any(|(name, _)| name != "name" && name != "generateName") {
            let rule =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.push(FieldError::forbidden(at.key("metadata"), rule));
        }
    }

    fn list_type(&mut self, map: &Object, path: &Path<'_>) {
        let at = path.child("x-kubernetes-list-type");
        let ty = map.get("x-kubernetes-list-type").and_then(Value::as_str);
        let keys = list(map, "x-kubernetes-list-map-keys");
        if let Some(list_type) = ty {
            if !matches!(list_type, "atomic" | "set" | "map") {
                self.push(FieldError::not_supported(at, list_type, ["atomic", "set", "map"]));
            }
            if text(map, "type") != "array" {
                let rule = "must be array if x-kubernetes-list-type is specified";
                self.push(FieldError::invalid(path.child("type"), text(map, "type"), rule));
            }
        }
        if !keys.is_empty() && ty != Some("map") {
            let rule = "must be map if x-kubernetes-list-map-keys is non-empty";
            match ty {
                None => self.push(FieldError::required(at, rule)),
                Some(ty) => self.push(FieldError::invalid(at, ty, rule)),
            }
        }
        match ty {
            Some("set") => self.set(map, path),
            Some("map") => self.list_map(map, keys, path),
            _ => {}
        }
    }

    fn set(&mut self, map: &Object, path: &Path<'_>) {
        let Some(items) = object(map, "items") else { return };
        let at = path.child("items");
        if flag(items, "nullable") {
            let rule = "cannot be nullable when x-kubernetes-list-type is set";
            self.push(FieldError::forbidden(at.child("nullable"), rule));
        }
        for (ty, key) in [("object", "x-kubernetes-map-type"), ("array", "x-kubernetes-list-type")] {
            let declared = items.get(key).cloned().unwrap_or(Value::Null);
            let fine = declared == "atomic" || (ty == "array" && declared.is_null());
            if text(items, "type") == ty && !fine {
                let rule = "must be atomic as item of a list with x-kubernetes-list-type=set";
                self.push(FieldError::invalid(at.child(key), declared, rule));
            }
        }
    }

    fn list_map(&mut self, map: &Object, keys: &[Value], path: &Path<'_>) {
        let at = path.child("x-kubernetes-list-map-keys");
        if keys.is_empty() {
            self.push(FieldError::required(at, "must not be empty if x-kubernetes-list-type is map"));
        }
        let Some(items) = object(map, "items") else { return };
        let items_at = path.child("items");
        if text(items, "type") != "object" {
            let rule = "must be object if parent array's x-kubernetes-list-type is map";
            self.push(FieldError::invalid(items_at.child("type"), text(items, "type"), rule));
        }
        let properties_at = items_at.child("properties");
        let properties = object(items, "properties");
        let required: HashSet<&str> = list(items, "required").iter().filter_map(Value::as_str).collect();
        let mut seen = HashSet::new();
        let (mut doubled, mut unknown) = (false, false);
        for key in keys.iter().filter_map(Value::as_str) {
            doubled |= !seen.insert(key);
            match properties.and_then(|p| object(p, key)) {
                Some(field) => {
                    self.list_map_key(field, required.contains(key), &properties_at.key(key));
                }
                None => unknown |= properties.is_some(),
            }
        }
        let all = Value::from(keys.to_vec());
        if doubled {
            self.push(FieldError::invalid(at, all.clone(), "must not contain duplicate entries"));
        }
        if unknown {
            self.push(FieldError::invalid(at, all, "entries must all be names of item properties"));
        }
    }

    fn list_map_key(&mut self, field: &Object, required: bool, path: &Path<'_>) {
        let ty = text(field, "type");
        if matches!(ty, "array" | "object") {
            let rule = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            self.push(FieldError::invalid(path.child("type"), ty, rule));
        }
        let what = "this property is in x-kubernetes-list-map-keys, so it";
        if !required && field.get("default").is_none_or(Value::is_null) {
            let rule = format!("{what} must have a default or be a required property");
            self.push(FieldError::required(path.child("default"), rule));
        }
        if flag(field, "nullable") {
            self.push(FieldError::forbidden(path.child("nullable"), format!("{what} cannot be nullable")));
        }
    }

    fn map_type(&mut self, map: &Object, path: &Path<'_>) {
        let Some(ty) = map.get("x-kubernetes-map-type").and_then(Value::as_str) else { return };
        if !matches!(ty, "atomic" | "granular") {
            let at = path.child("x-kubernetes-map-type");
            self.push(FieldError::not_supported(at, ty, ["atomic", "granular"]));
        }
        if text(map, "type") != "object" {
            let rule = "must be object if x-kubernetes-map-type is specified";
            self.push(FieldError::invalid(path.child("type"), text(map, "type"), rule));
        }
    }

    fn rules(&mut self, map: &Object, path: &Path<'_>) {
        let all = path.child("x-kubernetes-validations");
        for (index, rule) in list(map, "x-kubernetes-validations").iter().enumerate() {
            let Some(rule) = rule.as_object() else { continue };
            let at = all.index(index);
            if text(rule, "rule").trim().is_empty() {
                self.push(FieldError::required(at.child("rule"), "rule is not specified"));
            }
            let message = text(rule, "message");
            if message.contains(['\n', '\r']) {
                self.push(FieldError::invalid(at.child("message"), message, "must not contain line breaks"));
            }
            let reason = text(rule, "reason");
            if !reason.is_empty() && !REASONS.contains(&reason) {
                self.push(FieldError::not_supported(at.child("reason"), reason, REASONS));
            }
        }
    }

    fn default(&mut self, map: &Object, path: &Path<'_>) {
        let Some(default) = map.get("default").filter(|v| !v.is_null()) else { return };
        let at = path.child("default");
        let schema = parse::schema(&Value::Object(map.clone()));
        let mut pruned = default.clone();
        // A default is no resource of its own, so apiVersion and the like are unknown there, too.
        let wrapped = crate::Schema::map_of(schema);
        let mut holder = Value::Object(Map::from_iter([("value".to_owned(), pruned.take())]));
        if !prune(&mut holder, &wrapped).is_empty() {
            return self.push(FieldError::invalid(at, default.clone(), "must not have unknown fields"));
        }
        let Some(schema) = wrapped.additional.as_deref() else { return };
        self.errors.extend(validate_at(default, schema, &at.to_string(), &mut self.budget));
    }

    fn junctors(&mut self, map: &Object, path: &Path<'_>) {
        for name in ["allOf", "anyOf", "oneOf"] {
            let branches = list(map, name);
            if flag(map, "x-kubernetes-int-or-string") && is_int_or_string(name, branches) {
                continue;
            }
            let at = path.child(name);
            for (index, branch) in branches.iter().enumerate() {
                if let Some(branch) = branch.as_object() {
                    self.branch(branch, &at.index(index));
                }
            }
        }
        if let Some(branch) = object(map, "not") {
            self.branch(branch, &path.child("not"));
        }
    }

    /// Inside of allOf, anyOf, oneOf and not only values may be limited, the structure is said outside.
    fn branch(&mut self, map: &Object, path: &Path<'_>) {
        if self.depth >= MAX_DEPTH {
            return self.push(FieldError::forbidden(path, format!("may not nest deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        for (key, value) in map {
            let rule = match key.as_str() {
                "additionalProperties" | "default" => "must be undefined to be structural",
                "type" | "description" | "title" if value != "" => "must be empty to be structural",
                "nullable"
                | "x-kubernetes-preserve-unknown-fields"
                | "x-kubernetes-embedded-resource"
                | "x-kubernetes-int-or-string"
                    if value != &Value::Bool(false) =>
                {
                    "must be false to be structural"
                }
                "x-kubernetes-list-type"
                | "x-kubernetes-list-map-keys"
                | "x-kubernetes-map-type"
                | "x-kubernetes-validations" => "must be undefined to be structural",
                _ => continue,
            };
            if !value.is_null() {
                self.push(FieldError::forbidden(path.child(key), rule));
            }
        }
        self.pattern(map, path);
        let properties = path.child("properties");
        for (name, child) in object(map, "properties").into_iter().flatten() {
            if let Some(child) = child.as_object() {
                self.branch(child, &properties.key(name));
            }
        }
        if let Some(items) = object(map, "items") {
            self.branch(items, &path.child("items"));
        }
        self.junctors(map, path);
        self.depth -= 1;
    }
}

/// The two spellings of "integer or string" that may stand beside `x-kubernetes-int-or-string`.
fn is_int_or_string(name: &str, branches: &[Value]) -> bool {
    let pair = |list: &[Value]| matches!(list, [a, b] if *a == serde_json::json!({"type": "integer"}) && *b == serde_json::json!({"type": "string"}));
    match name {
        "anyOf" => pair(branches),
        "allOf" => branches.first().and_then(Value::as_object).is_some_and(|first| pair(list(first, "anyOf"))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// [schema, errors as [reason, field, message]] a line; an empty list is a schema that upstream takes.
    const UPSTREAM: &str = include_str!("upstream.json");

    /// Each key was looked for among all required fields: minutes for one body.
    #[test]
    fn keys_and_required_fields_without_end_cost_little() {
        let items = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": vec!["b"; 100_000]});
        let list = json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": vec!["a"; 100_000], "items": items});
        let began = std::time::Instant::now();
        let errors = check(&json!({"type": "object", "properties": {"l": list}}), "s");
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(errors.len(), 100_001);
    }

    #[test]
    fn answers_are_upstreams() {
        let cases: Vec<(Value, Vec<Value>)> = serde_json::from_str(UPSTREAM).expect("test data");
        for (schema, mut wanted) in cases {
            let errors = check(&schema, "spec.validation.openAPIV3Schema");
            let mut errors: Vec<Value> = errors.iter().map(|e| json!([e.kind.cause(), e.path, e.body()])).collect();
            errors.sort_by_key(Value::to_string);
            wanted.sort_by_key(Value::to_string);
            assert_eq!(errors, wanted, "{schema}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let mut schema = json!({"type": "object"});
        for _ in 0..200 {
            schema = json!({"type": "object", "properties": {"a": schema}});
        }
        assert!(check(&schema, "x").iter().any(|e| e.detail.contains("nest deeper")));
    }
}
