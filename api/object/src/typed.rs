//! How a schema sees a value: which lists are sets or maps, which items are the same item, which objects are one leaf.
//!
//! Everything of server-side apply walks values through this view: [`Kind`] says how to descend, [`item_element`] names
//! an item of a list, [`check`] refuses a configuration that does not fit.

use crate::fields::{field_element, push_element};
use schema::{Field, ListType, MapType, Schema, Type};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::LazyLock;

/// How a value is treated below a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Leaf,
    /// An object whose fields are owned one by one.
    Fields,
    /// A list whose items are owned one by one.
    Items,
}

/// A schema with the map type of the field it is reached by.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub schema: &'a Schema,
    atomic_map: bool,
}

impl<'a> Node<'a> {
    pub fn new(schema: &'a Schema) -> Node<'a> {
        Node { schema, atomic_map: schema.map_type == MapType::Atomic }
    }

    pub fn of_field(field: &'a Field) -> Node<'a> {
        Node { schema: &field.schema, atomic_map: field.map_type() == MapType::Atomic }
    }

    /// How a value of this node is treated. Null takes whatever form the other side has.
    pub fn kind(self, value: &Value) -> Kind {
        match value {
            Value::Object(_) if !self.atomic_map => Kind::Fields,
            Value::Array(_) if self.schema.list_type != ListType::Atomic => Kind::Items,
            _ => Kind::Leaf,
        }
    }

    /// Whether fields of an object here are owned one by one.
    pub fn has_fields(self) -> bool {
        !self.atomic_map
    }

    /// Whether items of a list here are owned one by one.
    pub fn has_items(self) -> bool {
        self.schema.list_type != ListType::Atomic
    }

    /// The declared field or the map values' schema, and whether the field is declared.
    pub fn field(self, name: &str) -> (Node<'a>, bool) {
        match self.schema.properties.get(name) {
            Some(field) => (Node::of_field(field), true),
            None => match self.schema.additional.as_deref() {
                Some(values) => (Node::new(values), false),
                None => (Node::new(&schema::ANYTHING), false),
            },
        }
    }

    pub fn items(self) -> Node<'a> {
        Node::new(self.schema.items.as_deref().unwrap_or(&schema::ANYTHING))
    }
}

/// The path element of a list item.
pub(crate) fn item_element(node: Node<'_>, item: &Value) -> Result<Box<str>, String> {
    match node.schema.list_type {
        ListType::Map => keyed_element(node, item),
        _ => match item {
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            Value::Object(_) if node.schema.items.as_deref().is_none_or(|i| i.map_type != MapType::Atomic) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            value => Ok(format!("v:{value}").into_boxed_str()),
        },
    }
}

fn keyed_element(node: Node<'_>, item: &Value) -> Result<Box<str>, String> {
    let Some(map) = item.as_object() else {
        return Err(match item {
            Value::Null => "associative list with keys may not have a null element".to_owned(),
            _ => "associative list with keys may not have non-map elements".to_owned(),
        });
    };
    let keys = &node.schema.list_map_keys;
    if let [key] = keys.as_slice()
        && let Some(value) = map.get(key.as_ref())
    {
        return Ok(format!("k:{{{}:{value}}}", Value::String(key.to_string())).into_boxed_str());
    }
    let mut found = Map::new();
    for key in keys {
        let value = map.get(key.as_ref()).or_else(|| key_default(node, key));
        if let Some(value) = value {
            found.insert(key.to_string(), value.clone());
        }
    }
    if found.is_empty() {
        let names = meta::text::quoted_list(keys).replace(", ", " ");
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{names}] (and doesn't have default values for any key fields)"
        ));
    }
    Ok(format!("k:{}", Value::Object(found)).into_boxed_str())
}

/// What an absent key stands for: its default, or zero where the type has no way to leave it out.
fn key_default<'a>(node: Node<'a>, key: &str) -> Option<&'a Value> {
    static ZEROS: LazyLock<[Value; 2]> = LazyLock::new(|| [Value::from(""), Value::from(0)]);
    let field = node.schema.items.as_deref()?.properties.get(key)?;
    let default = field.default.as_ref().or(field.schema.default.as_ref());
    default.or_else(|| match field.schema.ty {
        Type::String if field.always => Some(&ZEROS[0]),
        Type::Integer if field.always => Some(&ZEROS[1]),
        _ => None,
    })
}

/// Whether values count as nothing for "both sides are empty".
pub(crate) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// Everything about a configuration that does not fit the schema, in upstream's words.
pub(crate) fn check(value: &Value, schema: &Schema) -> Vec<String> {
    let mut checker = Checker { errors: Vec::new() };
    checker.walk(value, Node::new(schema), &At { parent: None, step: Step::Root });
    checker.errors
}

struct Checker {
    errors: Vec<String>,
}

/// Where the checker is; rendered only for an error.
struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Root,
    Field(&'a str),
    Item(&'a str),
    Index(usize),
}

impl At<'_> {
    fn child<'b>(&'b self, step: Step<'b>) -> At<'b> {
        At { parent: Some(self), step }
    }

    fn render(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.render(out);
        }
        match self.step {
            Step::Root => {}
            Step::Field(name) => push_element(out, &field_element(name)),
            Step::Item(element) => push_element(out, element),
            Step::Index(index) => push_element(out, &format!("i:{index}")),
        }
    }
}

impl Checker {
    fn report(&mut self, at: &At<'_>, what: &str) {
        // A configuration that fits nowhere must not answer with a book.
        const MOST: usize = 64;
        if self.errors.len() < MOST {
            let mut path = String::new();
            at.render(&mut path);
            let path = if path.is_empty() { "." } else { &path };
            self.errors.push(format!("{path}: {what}"));
        }
    }

    fn walk(&mut self, value: &Value, node: Node<'_>, at: &At<'_>) {
        if value.is_null() {
            return;
        }
        let expected = match (node.schema.ty, value) {
            (Type::Object | Type::Any, Value::Object(_)) => return self.object(value, node, at),
            (Type::Array, Value::Array(_)) => return self.list(value, node, at),
            (Type::Object, _) => "map",
            (Type::Array, _) => "list",
            // Scalars with a form of their own (quantities) admit numbers and are read when the object is.
            (Type::String, Value::Number(_)) if is_quantity(node.schema) => return,
            (Type::String, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => return,
            (Type::Integer | Type::Number, Value::Number(_)) => return,
            (Type::String, _) => "string",
            (Type::Boolean, _) => "boolean",
            (Type::Integer | Type::Number, _) => "numeric (int or float)",
            (Type::Any | Type::IntOrString, _) => return,
        };
        let got = match expected {
            "string" => format!("&value.valueUnstructured{{Value:{}}}", go_syntax(value)),
            "numeric (int or float)" => go_type(value).to_owned(),
            _ => format!("&{{{}}}", meta::text::go_value(value)),
        };
        self.report(at, &format!("expected {expected}, got {got}"));
    }

    fn object(&mut self, value: &Value, node: Node<'_>, at: &At<'_>) {
        let open =
            node.schema.preserve_unknown || node.schema.properties.is_empty() || node.schema.additional.is_some();
        for (key, child) in value.as_object().into_iter().flatten() {
            let (below, declared) = node.field(key);
            let here = at.child(Step::Field(key));
            if declared || open {
                self.walk(child, below, &here);
            } else {
                self.report(&here, "field not declared in schema");
            }
        }
    }

    fn list(&mut self, value: &Value, node: Node<'_>, at: &At<'_>) {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if !node.has_items() {
            for (index, item) in list.iter().enumerate() {
                self.walk(item, node.items(), &at.child(Step::Index(index)));
            }
            return;
        }
        let mut seen = HashSet::new();
        for (index, item) in list.iter().enumerate() {
            match item_element(node, item) {
                Err(why) => self.report(at, &format!("element {index}: {why}")),
                Ok(element) => {
                    self.walk(item, node.items(), &at.child(Step::Item(&element)));
                    if let Some(element) = seen.replace(element) {
                        let mut name = String::new();
                        push_element(&mut name, &element);
                        self.report(at, &format!("duplicate entries for key {name}"));
                    }
                }
            }
        }
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    let joined = |parts: Vec<String>| format!("{}{{{}}}", go_type(value), parts.join(", "));
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => meta::text::quote(text),
        Value::Array(list) => joined(list.iter().map(go_syntax).collect()),
        Value::Object(map) => {
            joined(map.iter().map(|(k, v)| format!("{}:{}", meta::text::quote(k), go_syntax(v))).collect())
        }
        scalar => meta::text::go_value(scalar),
    }
}

fn is_quantity(schema: &Schema) -> bool {
    schema.name.as_deref().is_some_and(|name| name.ends_with(".Quantity"))
}
