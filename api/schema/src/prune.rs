//! Unknown fields: removes them (custom resources), or lists them for strict and warning field validation.
//!
//! The value is always a whole resource: apiVersion, kind and metadata belong to it whether the schema says so or not,
//! and likewise to every embedded resource below.

use crate::node::{Schema, SchemaRef};
use serde_json::Value;

/// Most unknown fields that are reported; a body of junk must not make an answer of the same size.
pub const MAX_REPORTED: usize = 128;

/// Removes fields that the schema does not know and returns their paths (`spec.foo`, `spec.list[0].foo`).
pub fn prune(value: &mut Value, schema: &Schema) -> Vec<String> {
    let mut found = Found::default();
    found.prune(value, Node::root(schema));
    found.told()
}

/// Paths of the fields that the schema does not know.
pub fn unknown_fields(value: &Value, schema: &Schema) -> Vec<String> {
    let mut found = Found::default();
    found.list(value, Node::root(schema));
    found.told()
}

/// A schema node, or nothing known at all; `resource` when the object is a resource of its own.
#[derive(Clone, Copy)]
struct Node<'a> {
    schema: Option<&'a Schema>,
    resource: bool,
    /// Unknown fields stay, here and, where this is a list, in what it lists: `x-kubernetes-preserve-unknown-fields` of
    /// a list is about its items, though not about the fields that these declare.
    keeps: bool,
}

/// What to do with one field of an object.
enum Verdict<'a> {
    Known(Node<'a>),
    /// Kept, and nothing below is looked at.
    Kept,
    Unknown,
}

impl<'a> Node<'a> {
    fn of(schema: &'a Schema) -> Node<'a> {
        Node { schema: Some(schema), resource: schema.embedded_resource, keeps: schema.preserve_unknown }
    }

    /// The value of a request or of the store: a resource, whether its schema says so or not.
    fn root(schema: &'a Schema) -> Node<'a> {
        Node { resource: true, ..Node::of(schema) }
    }

    fn items(self) -> Option<Node<'a>> {
        match self.schema.and_then(|schema| schema.items.as_deref()) {
            Some(items) => Some(Node { keeps: self.keeps || items.preserve_unknown, ..Node::of(items) }),
            None if self.keeps => None,
            None => Some(Node { schema: None, resource: false, keeps: false }),
        }
    }

    fn field(self, key: &str) -> Verdict<'a> {
        let Some(schema) = self.schema else { return Verdict::Unknown };
        if let Some(field) = schema.properties.get(key) {
            return Verdict::Known(Node::of(&field.schema));
        }
        if self.resource && matches!(key, "apiVersion" | "kind" | "metadata") {
            return Verdict::Kept;
        }
        match &schema.additional {
            Some(values) => Verdict::Known(Node::of(values as &SchemaRef)),
            None if self.keeps => Verdict::Kept,
            None => Verdict::Unknown,
        }
    }
}

#[derive(Default)]
struct Found {
    paths: Vec<String>,
    /// Those in metadata of embedded resources, which upstream looks at when it is through with the rest.
    of_metadata: Vec<String>,
    at: String,
    in_metadata: bool,
}

impl Found {
    fn report(&mut self, key: &str) {
        if self.paths.len() + self.of_metadata.len() < MAX_REPORTED {
            let dot = if self.at.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{key}", self.at);
            if self.in_metadata { self.of_metadata.push(path) } else { self.paths.push(path) }
        }
    }

    fn told(mut self) -> Vec<String> {
        self.paths.append(&mut self.of_metadata);
        self.paths
    }

    /// Runs `f` inside of a field of a node.
    fn below(&mut self, node: Node<'_>, key: &str, f: impl FnOnce(&mut Found)) {
        let before = self.in_metadata;
        self.in_metadata |= node.resource && key == "metadata" && !self.at.is_empty();
        self.within(key, f);
        self.in_metadata = before;
    }

    /// Runs `f` with the path extended by a field name.
    fn within(&mut self, key: &str, f: impl FnOnce(&mut Found)) {
        let length = self.at.len();
        if length > 0 {
            self.at.push('.');
        }
        self.at.push_str(key);
        f(self);
        self.at.truncate(length);
    }

    /// Runs `f` with the path extended by an index.
    fn element(&mut self, index: usize, f: impl FnOnce(&mut Found)) {
        let length = self.at.len();
        self.at.push_str(&format!("[{index}]"));
        f(self);
        self.at.truncate(length);
    }

    fn prune(&mut self, value: &mut Value, node: Node<'_>) {
        match value {
            Value::Object(map) => {
                let mut unknown = Vec::new();
                for (key, child) in map.iter_mut() {
                    match node.field(key) {
                        Verdict::Known(below) if is_container(child) => {
                            self.below(node, key, |f| f.prune(child, below))
                        }
                        Verdict::Known(_) | Verdict::Kept => {}
                        Verdict::Unknown => {
                            self.report(key);
                            unknown.push(key.clone());
                        }
                    }
                }
                for key in unknown {
                    map.remove(&key);
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items() else { return };
                for (index, item) in list.iter_mut().enumerate().filter(|(_, item)| is_container(item)) {
                    self.element(index, |f| f.prune(item, items));
                }
            }
            _ => {}
        }
    }

    fn list(&mut self, value: &Value, node: Node<'_>) {
        match value {
            Value::Object(map) => {
                for (key, child) in map {
                    match node.field(key) {
                        Verdict::Known(below) if is_container(child) => self.below(node, key, |f| f.list(child, below)),
                        Verdict::Known(_) | Verdict::Kept => {}
                        Verdict::Unknown => self.report(key),
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items() else { return };
                for (index, item) in list.iter().enumerate().filter(|(_, item)| is_container(item)) {
                    self.element(index, |f| f.list(item, items));
                }
            }
            _ => {}
        }
    }
}

fn is_container(value: &Value) -> bool {
    matches!(value, Value::Object(_) | Value::Array(_))
}
