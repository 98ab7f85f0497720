//! Holds a custom resource against its schema, with upstream's texts. Pure; the server calls it after pruning and
//! defaulting.
//!
//! Types, formats, limits, combinations, the shape of embedded resources ([`resource`]), and the uniqueness that list types
//! promise ([`unique`]). Rules in the expression language are not evaluated.
//!
//! An update is judged in one walk over the new object and the old one, which are correlated ([`correlate`]). A value that
//! is what it was is not judged, whatever is wrong with it: a schema that became stricter stops nobody from changing
//! something else (ratcheting, KEP-4008). What became different is judged, and so is everything that it is a part of, for
//! that became different, too. With `maximum: 10`, `required: [b]` for `a`, and a list that is a map by `name`:
//!
//! ```text
//!   old                      new                      is judged                and told
//!   spec:                    spec:                    spec    (l changed)
//!     a: {n: 50}               a: {n: 50}             -       (the same)       -  neither n > 10 nor that b is missing
//!     l:                       l:                     l       (an item did)
//!     - {name: x, n: 11}       - {name: y, n: 12}     l[0]    (n did)          l[0].n: 12 > 10
//!     - {name: y, n: 10}       - {name: x, n: 11}     -       (only moved)     -
//! ```
//!
//! As upstream has it, nothing in a list of another type is correlated, so its items are judged when any of it changed; nor
//! is what stands in `allOf`, `anyOf`, `oneOf` and `not`, which are judged with the value that they are about; a value with
//! fields that its schema doesn't name counts as changed, and so does every object as a whole, for nobody declares all of
//! its metadata. `apiVersion` and `kind` are always judged: the old object was converted to them.

mod budget;
mod correlate;
mod resource;
mod unique;

pub use budget::{Budget, MAX_ERRORS, MAX_STEPS};

use crate::formats;
use crate::node::{Schema, Type, Validation};
use correlate::Items;
use meta::{FieldError, Path};
use serde_json::{Map, Number, Value};
use std::collections::HashSet;

/// Most bytes of an enumeration that an error shows, each value with what it takes to keep it: there may be as many errors.
const MAX_SHOWN: usize = 64 * 1024;
const VALUE: usize = 32;

/// Everything about an object that its schema does not admit, but for what it shares with `old`, the object that it
/// replaces. Both are of the schema's version.
pub fn validate(new: &Value, old: Option<&Value>, schema: &Schema, budget: &mut Budget) -> Vec<FieldError> {
    let mut checker = Checker::new("", budget);
    let root = Path::root("");
    checker.walk(new, old, schema, &root);
    checker.embedded(new, schema, &root);
    checker.lists(new, old, schema);
    checker.done()
}

/// The same for an update of `status`: the rest of the object is the old one's and is not judged, but for its lists.
pub fn validate_status(new: &Value, old: &Value, schema: &Schema, budget: &mut Budget) -> Vec<FieldError> {
    let mut checker = Checker::new("status", budget);
    if let (Some(status), Some(node)) = (new.get("status"), schema.child("status")) {
        checker.walk(status, old.get("status"), node, &Path::root(""));
    }
    let mut errors = checker.done();
    let mut checker = Checker::new("", budget);
    checker.lists(new, Some(old), schema);
    errors.append(&mut checker.done());
    errors
}

/// The same for a new value that is not an object of its own; `base` is where it is (the path of errors starts there).
pub(crate) fn validate_at(value: &Value, schema: &Schema, base: &str, budget: &mut Budget) -> Vec<FieldError> {
    let mut checker = Checker::new(base, budget);
    let root = Path::root("");
    checker.walk(value, None, schema, &root);
    checker.embedded(value, schema, &root);
    checker.lists(value, None, schema);
    checker.done()
}

struct Checker<'a> {
    errors: Vec<FieldError>,
    base: &'a str,
    budget: &'a mut Budget,
}

/// The path of an error that is about no single field, as upstream prints it.
const NO_PATH: &str = "<nil>";

impl<'a> Checker<'a> {
    fn new(base: &'a str, budget: &'a mut Budget) -> Checker<'a> {
        Checker { errors: Vec::new(), base, budget }
    }

    /// The errors, which are paid for now.
    fn done(mut self) -> Vec<FieldError> {
        if self.budget.is_spent() {
            self.errors.truncate(self.budget.errors.saturating_sub(1));
            self.whole(format!("held against its schema in more than {MAX_STEPS} steps; the rest was not checked"));
        }
        self.budget.errors -= self.errors.len().min(self.budget.errors);
        self.errors
    }
}

impl Checker<'_> {
    fn full(&self, path: &Path<'_>) -> String {
        match (self.base, path.is_root()) {
            (base, true) => base.to_owned(),
            ("", false) => path.to_string(),
            (base, false) => format!("{base}.{path}"),
        }
    }

    fn push(&mut self, error: FieldError) {
        if self.errors.len() < self.budget.errors {
            self.errors.push(error);
        }
    }

    fn append(&mut self, errors: Vec<FieldError>) {
        errors.into_iter().for_each(|error| self.push(error));
    }

    fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, rule: impl std::fmt::Display) {
        self.push(FieldError::invalid(self.full(path), value, format!("{path} in body {rule}")));
    }

    fn whole(&mut self, text: String) {
        let path = if self.base.is_empty() { NO_PATH } else { self.base };
        self.push(FieldError::invalid(path, "", text));
    }

    /// Runs the check of another schema at the same place and returns its errors. Nothing is ratcheted in there.
    fn attempt(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) -> Vec<FieldError> {
        let mut inner = Checker::new(self.base, self.budget);
        inner.walk(value, None, schema, path);
        inner.errors
    }

    /// Judges a value and what is in it; whether it is another than `old`. One that is not is not judged.
    fn walk(&mut self, value: &Value, old: Option<&Value>, schema: &Schema, path: &Path<'_>) -> bool {
        if !self.budget.step() {
            return true;
        }
        if old.is_none() {
            self.open(value, schema, path);
            self.inside(value, None, schema, path);
            self.close(value, schema, path);
            return true;
        }
        let mark = self.errors.len();
        if !self.inside(value, old, schema, path) {
            return false;
        }
        let inner = self.errors.len() - mark;
        self.open(value, schema, path);
        // Only what is in a value can tell that it changed, and yet its own errors come first.
        self.errors[mark..].rotate_left(inner);
        self.close(value, schema, path);
        true
    }

    /// Judges what is in a value; whether the value is another than `old`.
    fn inside(&mut self, value: &Value, old: Option<&Value>, schema: &Schema, path: &Path<'_>) -> bool {
        match value {
            Value::Object(map) => self.fields(map, old.and_then(Value::as_object), schema, path),
            Value::Array(list) => self.items(list, old.and_then(Value::as_array), schema, path),
            scalar => old != Some(scalar),
        }
    }

    fn fields(
        &mut self,
        map: &Map<String, Value>,
        old: Option<&Map<String, Value>>,
        schema: &Schema,
        path: &Path<'_>,
    ) -> bool {
        let whole = path.is_root() && self.base.is_empty();
        let mut changed = whole || old.is_none_or(|old| old.len() != map.len());
        for (key, value) in map {
            let Some(node) = schema.child(key) else {
                changed = true;
                continue;
            };
            let always = whole && matches!(key.as_str(), "apiVersion" | "kind");
            let old = old.and_then(|old| old.get(key)).filter(|_| !always);
            changed |= self.walk(value, old, node, &path.child(key));
        }
        changed
    }

    fn items(&mut self, list: &[Value], old: Option<&Vec<Value>>, schema: &Schema, path: &Path<'_>) -> bool {
        let mut correlated = old.and_then(|old| Items::of(old, schema));
        if correlated.is_none() && old.is_some_and(|old| old == list) {
            return false;
        }
        let mut changed = correlated.is_none() || old.is_none_or(|old| old.len() != list.len());
        let Some(items) = schema.items.as_deref() else { return true };
        for (index, item) in list.iter().enumerate() {
            let old = correlated.as_mut().and_then(|old| old.get(index, item));
            changed |= self.walk(item, old, items, &path.index(index));
        }
        changed
    }

    /// Judges a value by itself: what upstream tells before what is in it.
    fn open(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
        if value.is_null() && schema.nullable {
            return;
        }
        self.type_of(value, schema, path);
        let rules = schema.validation.as_deref();
        if let Some(rules) = rules.filter(|_| !value.is_null()) {
            self.combinations(value, rules, path);
        }
        match value {
            Value::String(text) => self.string(text, schema, path),
            Value::Number(number) => self.number(number, schema, path),
            Value::Array(_) => return,
            _ => {}
        }
        self.enumeration(value, rules, path);
        if let Value::Object(map) = value {
            self.object(map, schema, path);
        }
    }

    /// And what it tells after that.
    fn close(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
        if let Value::Array(list) = value {
            let rules = schema.validation.as_deref();
            self.list(list, rules, path);
            self.enumeration(value, rules, path);
        }
    }

    fn type_of(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
        let actual = type_name(value);
        if schema.ty == Type::Any {
            return;
        }
        let wanted = schema.ty.name();
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
                self.append(attempts.swap_remove(0));
            }
        }
        if !rules.one_of.is_empty() {
            let mut attempts = rules.one_of.iter().map(|s| self.attempt(value, s, path)).collect::<Vec<_>>();
            let only = "must validate one and only one schema (oneOf). Found";
            match attempts.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => {
                    self.whole(format!("\"{path}\" {only} none valid"));
                    self.append(attempts.swap_remove(0));
                }
                n => self.whole(format!("\"{path}\" {only} {n} valid alternatives")),
            }
        }
        if !rules.all_of.is_empty() {
            let mut valid = 0;
            for schema in &rules.all_of {
                let errors = self.attempt(value, schema, path);
                valid += usize::from(errors.is_empty());
                self.append(errors);
            }
            if valid < rules.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                self.whole(format!("\"{path}\" must validate all the schemas (allOf){none}"));
            }
        }
        if let Some(schema) = &rules.not
            && self.attempt(value, schema, path).is_empty()
        {
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

    fn list(&mut self, list: &[Value], rules: Option<&Validation>, path: &Path<'_>) {
        let Some(rules) = rules else { return };
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

    fn object(&mut self, map: &Map<String, Value>, schema: &Schema, path: &Path<'_>) {
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
mod ratcheting;
#[cfg(test)]
mod tests;
