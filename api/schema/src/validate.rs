//! Checks a custom resource against its schema, with upstream's texts.
//!
//! The server calls [`validate`] after pruning and defaulting. Types, formats, limits, combinations, the shape of
//! embedded resources, and the uniqueness that list types promise. Rules in the expression language are not evaluated.

use crate::formats;
use crate::node::{ListType, Schema, Type, Validation};
use meta::{FieldError, Path, names};
use serde_json::{Number, Value};
use std::collections::HashSet;

/// Most errors that one object is answered with.
pub const MAX_ERRORS: usize = 256;
/// Most bytes of an enumeration that an error shows, each value with what it takes to keep it: there may be as many errors.
const MAX_SHOWN: usize = 64 * 1024;
const VALUE: usize = 32;

/// Everything about an object that its schema does not admit.
pub fn validate(object: &Value, schema: &Schema) -> Vec<FieldError> {
    validate_at(object, schema, "")
}

/// The same for a value that is not an object of its own; `base` is where it is (the path of errors starts there).
pub fn validate_at(value: &Value, schema: &Schema, base: &str) -> Vec<FieldError> {
    let mut checker = Checker { errors: Vec::new(), base };
    let root = Path::root("");
    checker.walk(value, schema, &root);
    checker.embedded(value, schema, &root);
    checker.unique(value, schema, &root);
    checker.errors
}

struct Checker<'a> {
    errors: Vec<FieldError>,
    base: &'a str,
}

/// The path of an error that is about no single field, as upstream prints it.
const NO_PATH: &str = "<nil>";

impl Checker<'_> {
    fn full(&self, path: &Path<'_>) -> String {
        match (self.base, path.is_root()) {
            (base, true) => base.to_owned(),
            ("", false) => path.to_string(),
            (base, false) => format!("{base}.{path}"),
        }
    }

    fn push(&mut self, error: FieldError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }

    fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, rule: impl std::fmt::Display) {
        self.push(FieldError::invalid(self.full(path), value, format!("{path} in body {rule}")));
    }

    fn whole(&mut self, text: String) {
        self.push(FieldError::invalid(NO_PATH, "", text));
    }

    /// Runs the check of another schema at the same place and returns its errors.
    fn attempt(&self, value: &Value, schema: &Schema, path: &Path<'_>) -> Vec<FieldError> {
        let mut inner = Checker { errors: Vec::new(), base: self.base };
        inner.walk(value, schema, path);
        inner.errors
    }

    fn walk(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
        if value.is_null() && schema.nullable {
            return;
        }
        self.type_of(value, schema, path);
        let rules = schema.validation.as_deref();
        if value.is_null() {
            return self.enumeration(value, rules, path);
        }
        if let Some(rules) = rules {
            self.combinations(value, rules, path);
        }
        match value {
            Value::String(text) => self.string(text, schema, path),
            Value::Number(number) => self.number(number, schema, path),
            Value::Array(list) => self.list(list, schema, path),
            _ => {}
        }
        self.enumeration(value, rules, path);
        if let Value::Object(map) = value {
            self.object(map, schema, path);
        }
    }

    fn type_of(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
        let actual = type_name(value);
        let wanted = match schema.ty {
            Type::Any => return,
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::IntOrString => "integer,string",
        };
        let fits = match schema.ty {
            Type::Number => matches!(actual, "number" | "integer"),
            Type::IntOrString => matches!(actual, "integer" | "string"),
            _ => actual == wanted,
        };
        if fits {
            return;
        }
        let (wanted, actual) = match (value, schema.format.as_ref()) {
            (_, "") | (Value::Null, _) => (wanted, actual),
            // A format of what is no number is asked of texts only; upstream takes lists for texts here.
            (Value::String(_) | Value::Array(_), _) if !matches!(schema.ty, Type::Integer | Type::Number) => return,
            (Value::String(_) | Value::Array(_), _) => (wanted, actual),
            (Value::Number(number), format) if number.is_i64() => (format, "int64"),
            (Value::Number(_), format) => (format, "float64"),
            (Value::Bool(_) | Value::Object(_), format) => (format, ""),
        };
        let text = format!("{path} in body must be of type {wanted}: \"{actual}\"");
        self.push(FieldError::type_invalid(self.full(path), actual, text));
    }

    fn combinations(&mut self, value: &Value, rules: &Validation, path: &Path<'_>) {
        if !rules.any_of.is_empty() {
            let mut attempts = rules.any_of.iter().map(|s| self.attempt(value, s, path)).collect::<Vec<_>>();
            if attempts.iter().all(|errors| !errors.is_empty()) {
                self.whole(format!("\"{path}\" must validate at least one schema (anyOf)"));
                self.errors.append(&mut attempts[0]);
            }
        }
        if !rules.one_of.is_empty() {
            let mut attempts = rules.one_of.iter().map(|s| self.attempt(value, s, path)).collect::<Vec<_>>();
            let only = "must validate one and only one schema (oneOf). Found";
            match attempts.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => {
                    self.whole(format!("\"{path}\" {only} none valid"));
                    self.errors.append(&mut attempts[0]);
                }
                n => self.whole(format!("\"{path}\" {only} {n} valid alternatives")),
            }
        }
        if !rules.all_of.is_empty() {
            let mut valid = 0;
            for schema in &rules.all_of {
                let mut errors = self.attempt(value, schema, path);
                valid += usize::from(errors.is_empty());
                self.errors.append(&mut errors);
            }
            if valid < rules.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                self.whole(format!("\"{path}\" must validate all the schemas (allOf){none}"));
            }
        }
        if rules.not.as_ref().is_some_and(|schema| self.attempt(value, schema, path).is_empty()) {
            self.whole(format!("\"{path}\" must not validate the schema (not)"));
        }
    }

    fn string(&mut self, text: &str, schema: &Schema, path: &Path<'_>) {
        if let Some(rules) = schema.validation.as_deref() {
            let length = || text.chars().count() as u64;
            if let Some(most) = rules.max_length.filter(|most| length() > *most) {
                self.push(FieldError::too_long(self.full(path), signed(most)));
            }
            if let Some(least) = rules.min_length.filter(|least| length() < *least) {
                self.invalid(path, text, format_args!("should be at least {least} chars long"));
            }
            if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
                self.invalid(path, text, format_args!("should match '{}'", pattern.as_str()));
            }
        }
        if !schema.format.is_empty() && !formats::accepts(&schema.format, text) {
            let quoted = meta::text::quote(text);
            let message = format!("{path} in body must be of type {}: {quoted}", schema.format);
            self.push(FieldError::type_invalid(self.full(path), text, message));
        }
    }

    fn number(&mut self, number: &Number, schema: &Schema, path: &Path<'_>) {
        if let Some(wanted) = misfit(number, schema) {
            self.whole(format!("Checked value must be of type {wanted} in {path}"));
        }
        let Some(rules) = schema.validation.as_deref() else { return };
        let value = number.as_f64().unwrap_or(f64::NAN);
        let limit = |limit: &Option<Number>| limit.as_ref().and_then(Number::as_f64);
        if let Some(factor) = limit(&rules.multiple_of) {
            self.multiple(number, factor, path);
        }
        if let Some(most) = limit(&rules.maximum) {
            let (broken, words) = match rules.exclusive_maximum {
                true => (value >= most, "less than"),
                false => (value > most, "less than or equal to"),
            };
            if broken {
                self.invalid(path, number.clone(), format_args!("should be {words} {}", meta::text::float(most)));
            }
        }
        if let Some(least) = limit(&rules.minimum) {
            let (broken, words) = match rules.exclusive_minimum {
                true => (value <= least, "greater than"),
                false => (value < least, "greater than or equal to"),
            };
            if broken {
                self.invalid(path, number.clone(), format_args!("should be {words} {}", meta::text::float(least)));
            }
        }
    }

    /// Upstream counts integers in integers: the fraction of the factor is lost, and what is less than one is nothing.
    fn multiple(&mut self, number: &Number, factor: f64, path: &Path<'_>) {
        let whole = |text: String| format!("should be a multiple of {text}");
        match number.as_i64() {
            Some(value) => match factor as i64 {
                ..=0 => {
                    let text = format!("factor MultipleOf declared for {path} must be positive: 0");
                    self.push(FieldError::invalid(self.full(path), 0, text));
                }
                factor if value % factor != 0 => self.invalid(path, number.clone(), whole(factor.to_string())),
                _ => {}
            },
            None if !is_multiple(number.as_f64().unwrap_or(f64::NAN), factor) => {
                self.invalid(path, number.clone(), whole(meta::text::float(factor)));
            }
            None => {}
        }
    }

    fn list(&mut self, list: &[Value], schema: &Schema, path: &Path<'_>) {
        if let Some(items) = schema.items.as_deref() {
            for (index, item) in list.iter().enumerate() {
                self.walk(item, items, &path.index(index));
            }
        }
        let Some(rules) = schema.validation.as_deref() else { return };
        let count = list.len() as u64;
        if let Some(least) = rules.min_items.filter(|least| count < *least) {
            self.invalid(path, count, format_args!("should have at least {least} items"));
        }
        if let Some(most) = rules.max_items.filter(|most| count > *most) {
            self.push(FieldError::too_many(self.full(path), signed(count), signed(most)));
        }
        if rules.unique_items {
            let mut seen = HashSet::new();
            if !list.iter().all(|item| seen.insert(item.to_string())) {
                self.invalid(path, "", "shouldn't contain duplicates");
            }
        }
    }

    fn enumeration(&mut self, value: &Value, rules: Option<&Validation>, path: &Path<'_>) {
        let Some(allowed) = rules.map(|r| &r.enumeration).filter(|list| !list.is_empty()) else { return };
        if !allowed.iter().any(|known| equal(known, value)) {
            let names = allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            let mut left = MAX_SHOWN;
            let shown = names.take_while(|name: &String| {
                let fits = name.len() + VALUE <= left;
                left = left.saturating_sub(name.len() + VALUE);
                fits
            });
            self.push(FieldError::not_supported(self.full(path), value.clone(), shown));
        }
    }

    fn object(&mut self, map: &serde_json::Map<String, Value>, schema: &Schema, path: &Path<'_>) {
        if let Some(rules) = schema.validation.as_deref() {
            let count = map.len() as u64;
            if let Some(least) = rules.min_properties.filter(|least| count < *least) {
                self.invalid(path, count, format_args!("should have at least {least} properties"));
            }
            if let Some(most) = rules.max_properties.filter(|most| count > *most) {
                self.push(FieldError::too_many(self.full(path), signed(count), signed(most)));
            }
        }
        for name in schema.required.iter().filter(|name| !map.contains_key(name.as_ref())) {
            self.push(FieldError::required(self.full(&path.child(name)), ""));
        }
        for (key, value) in map {
            if let Some(node) = schema.child(key) {
                self.walk(value, node, &path.child(key));
            }
        }
    }

    /// What every embedded resource must have, wherever it is.
    fn embedded(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
        match value {
            Value::Object(map) => {
                if schema.embedded_resource {
                    self.resource(map, path);
                }
                for (key, child) in map {
                    if let Some(node) = schema.child(key)
                        && (child.is_object() || child.is_array())
                    {
                        self.embedded(child, node, &path.child(key));
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = schema.items.as_deref() {
                    for (index, item) in list.iter().enumerate() {
                        self.embedded(item, items, &path.index(index));
                    }
                }
            }
            _ => {}
        }
    }

    fn resource(&mut self, map: &serde_json::Map<String, Value>, path: &Path<'_>) {
        for name in ["apiVersion", "kind"] {
            let at = path.child(name);
            let text = match map.get(name) {
                None => {
                    self.push(FieldError::required(self.full(&at), ""));
                    continue;
                }
                Some(value) => value.as_str().unwrap_or_default(),
            };
            if text.is_empty() {
                self.push(FieldError::invalid(self.full(&at), "", "must not be empty"));
            } else if name == "apiVersion" && text.matches('/').count() > 1 {
                let detail = format!("unexpected GroupVersion string: {text}");
                self.push(FieldError::invalid(self.full(&at), text, detail));
            } else if name == "kind" {
                let problems = names::dns1035_label(&text.to_lowercase());
                if !problems.is_empty() {
                    let detail = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
                    self.push(FieldError::invalid(self.full(&at), text, detail));
                }
            }
        }
        if let Some(metadata) = map.get("metadata") {
            self.metadata(metadata, &path.child("metadata"));
        }
    }

    fn metadata(&mut self, metadata: &Value, path: &Path<'_>) {
        for name in ["name", "generateName"] {
            let text = metadata.get(name).and_then(Value::as_str).unwrap_or_default();
            for problem in names::path_segment(text) {
                self.push(FieldError::invalid(self.full(&path.child(name)), text, problem));
            }
        }
        for (name, is_label) in [("labels", true), ("annotations", false)] {
            let at = path.child(name);
            for (key, value) in metadata.get(name).and_then(Value::as_object).into_iter().flatten() {
                let checked = if is_label { key.clone() } else { key.to_lowercase() };
                for problem in names::qualified_name(&checked) {
                    self.push(FieldError::invalid(self.full(&at), key.as_str(), problem));
                }
                let text = value.as_str().filter(|_| is_label).unwrap_or_default();
                for problem in names::label_value(text) {
                    self.push(FieldError::invalid(self.full(&at), text, problem));
                }
            }
        }
    }

    /// Sets hold a value once, list maps a key once.
    fn unique(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
        match value {
            Value::Object(map) => {
                // Metadata has rules of its own: a finalizer may be there twice.
                let resource = schema.embedded_resource || (path.is_root() && self.base.is_empty());
                let inside = |key: &str, child: &Value| {
                    (child.is_object() || child.is_array()) && !(resource && key == "metadata")
                };
                for (key, child) in map.iter().filter(|(key, child)| inside(key, child)) {
                    if let Some(node) = schema.child(key) {
                        self.unique(child, node, &path.child(key));
                    }
                }
            }
            Value::Array(list) => {
                let mut seen = HashSet::new();
                for (index, item) in list.iter().enumerate() {
                    let Some(identity) = identity(item, schema) else { continue };
                    if !seen.insert(identity.to_string()) {
                        self.push(FieldError::duplicate(self.full(&path.index(index)), identity));
                    }
                }
                if let Some(items) = schema.items.as_deref() {
                    for (index, item) in list.iter().enumerate() {
                        self.unique(item, items, &path.index(index));
                    }
                }
            }
            _ => {}
        }
    }
}

fn identity(item: &Value, schema: &Schema) -> Option<Value> {
    match schema.list_type {
        ListType::Atomic => None,
        ListType::Set => Some(item.clone()),
        ListType::Map => {
            let map = item.as_object()?;
            let keys = schema.list_map_keys.iter();
            let found = keys.filter_map(|key| map.get(key.as_ref()).map(|value| (key.to_string(), value.clone())));
            let found: serde_json::Map<String, Value> = found.collect();
            (!found.is_empty()).then_some(Value::Object(found))
        }
    }
}

/// The JSON type as messages name it; whole floats are integers.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(number) if number.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() <= LARGEST_EXACT) => {
            "integer"
        }
        Value::Number(_) => "number",
    }
}

/// Whether a value is a factor many times, as far as binary fractions can tell.
fn is_multiple(value: f64, factor: f64) -> bool {
    const CLOSE: f64 = 1e-9;
    let times = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
    let nearest = times.round();
    times.abs() <= LARGEST_EXACT && (times == nearest || (times - nearest).abs() < CLOSE * nearest.abs())
}

/// Largest float that stands for one integer only.
const LARGEST_EXACT: f64 = 9_007_199_254_740_991.0;

fn whole_number(number: &Number) -> bool {
    // Above this a float no longer fits the 64 bits of an integer.
    const LARGEST: f64 = 9.2e18;
    number.is_i64() || number.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < LARGEST)
}

/// What a number should have been, when it does not fit type and format.
fn misfit(number: &Number, schema: &Schema) -> Option<&'static str> {
    let value = number.as_f64().unwrap_or(f64::NAN);
    let whole = whole_number(number);
    match (schema.ty, schema.format.as_ref()) {
        (Type::Integer, "int32")
            if !whole || value.abs() > f64::from(i32::MAX) + 0.5 && value != f64::from(i32::MIN) =>
        {
            Some("integer with format int32")
        }
        (Type::Integer, "int64") if !whole => Some("integer with format int64"),
        (Type::Integer, "int32" | "int64") => None,
        (Type::Integer, _) if !whole => Some("integer (default format)"),
        (Type::Number, "float") if value.abs() > f64::from(f32::MAX) => Some("number with format float"),
        _ => None,
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
