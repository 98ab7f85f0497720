//! From objects to sets of fields: what an object has, and what one write added, changed and removed.

use crate::fields::{Set, field_element};
use crate::typed::{Kind, Node, is_empty, item_element};
use schema::Schema;
use serde_json::Value;
use std::collections::BTreeMap;

/// What happened between two states of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Paths that only the new state has.
    pub added: Set,
    /// Leaves whose values differ.
    pub modified: Set,
    /// Paths that only the old state has.
    pub removed: Set,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// The same without some fields and everything below them.
    pub fn without(self, fields: &Set) -> Comparison {
        if fields.is_empty() {
            return self;
        }
        Comparison {
            added: self.added.minus_recursively(fields),
            modified: self.modified.minus_recursively(fields),
            removed: self.removed.minus_recursively(fields),
        }
    }

    /// The same without one field.
    pub fn forget(&mut self, path: &[&str]) {
        let field = Set::of_paths(&[path]);
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            *set = std::mem::take(set).minus(&field);
        }
    }

    fn insert(&mut self, element: Box<str>, below: Comparison) {
        match (below.added.is_empty(), below.modified.is_empty(), below.removed.is_empty()) {
            (true, true, true) => {}
            (false, true, true) => self.added.insert(element, below.added),
            (true, false, true) => self.modified.insert(element, below.modified),
            (true, true, false) => self.removed.insert(element, below.removed),
            _ => {
                self.added.insert(element.clone(), below.added);
                self.modified.insert(element.clone(), below.modified);
                self.removed.insert(element, below.removed);
            }
        }
    }
}

/// The fields that a configuration sets: what its applier will own.
pub fn field_set(value: &Value, schema: &Schema) -> Set {
    set_of(value, Node::new(schema))
}

fn set_of(value: &Value, node: Node<'_>) -> Set {
    match (node.kind(value), value) {
        (Kind::Fields, Value::Object(map)) => {
            let mut out = Set::new();
            for (key, child) in map {
                let (below, declared) = node.field(key);
                let mut set = set_of(child, below);
                let empty = child.is_null() || child.as_object().is_some_and(|m| m.is_empty());
                set.member |= empty || !declared;
                out.insert(field_element(key), set);
            }
            out
        }
        (Kind::Items, Value::Array(list)) => {
            let mut out = Set::new();
            for item in list {
                if let Ok(element) = item_element(node, item) {
                    let mut set = set_of(item, node.items());
                    set.member = true;
                    out.insert(element, set);
                }
            }
            out
        }
        _ => Set::leaf(),
    }
}

/// What a write changed.
pub fn compare(old: &Value, new: &Value, schema: &Schema) -> Comparison {
    let mut out = diff(Some(old), Some(new), Node::new(schema));
    // The root is no field.
    (out.added.member, out.modified.member, out.removed.member) = (false, false, false);
    out
}

/// The fields that come into being with an object. Objects and lists that are there for every object of the kind,
/// whoever makes it, are not among them; what is in them is.
pub fn created(value: &Value, schema: &Schema) -> Set {
    created_below(value, Node::new(schema))
}

fn created_below(value: &Value, node: Node<'_>) -> Set {
    let mut out = Set::new();
    for (key, child) in value.as_object().into_iter().flatten() {
        let set = match node.schema.properties.get(key) {
            Some(field) if field.always => always_there(child, Node::of_field(field)),
            Some(field) => whole(child, Node::of_field(field)),
            None => whole(child, node.field(key).0),
        };
        out.insert(field_element(key), set);
    }
    out
}

fn always_there(value: &Value, node: Node<'_>) -> Set {
    match (node.kind(value), value) {
        (Kind::Fields, _) => created_below(value, node),
        (Kind::Items, Value::Array(list)) if !list.is_empty() => {
            let mut set = whole(value, node);
            set.member = false;
            set
        }
        (Kind::Leaf, Value::Object(map)) if map.is_empty() => Set::new(),
        (_, Value::Null | Value::Bool(false)) => Set::new(),
        (_, Value::String(text)) if text.is_empty() => Set::new(),
        (_, Value::Number(n)) if n.as_i64() == Some(0) => Set::new(),
        _ => Set::leaf(),
    }
}

/// Everything below a value, all of it present on one side only.
fn whole(value: &Value, node: Node<'_>) -> Set {
    let mut out = Set::leaf();
    match (node.kind(value), value) {
        (Kind::Fields, Value::Object(map)) => {
            for (key, child) in map {
                out.insert(field_element(key), whole(child, node.field(key).0));
            }
        }
        (Kind::Items, Value::Array(list)) => {
            let mut seen = BTreeMap::new();
            for item in list {
                if let Ok(element) = item_element(node, item) {
                    *seen.entry(element).or_insert(0u32) += 1;
                }
            }
            for item in list {
                if let Ok(element) = item_element(node, item) {
                    let once = seen.get(&element) == Some(&1);
                    out.insert(element, if once { whole(item, node.items()) } else { Set::leaf() });
                }
            }
        }
        _ => {}
    }
    out
}

fn diff(old: Option<&Value>, new: Option<&Value>, node: Node<'_>) -> Comparison {
    match (old, new) {
        (None, None) => Comparison::default(),
        (None, Some(new)) => Comparison { added: whole(new, node), ..Comparison::default() },
        (Some(old), None) => Comparison { removed: whole(old, node), ..Comparison::default() },
        (Some(old), Some(new)) => diff_both(old, new, node),
    }
}

fn leaf(old: &Value, new: &Value) -> Comparison {
    let modified = if same(old, new) { Set::new() } else { Set::leaf() };
    Comparison { modified, ..Comparison::default() }
}

fn diff_both(old: &Value, new: &Value, node: Node<'_>) -> Comparison {
    if is_empty(Some(old)) && is_empty(Some(new)) {
        return leaf(old, new);
    }
    match (old, new) {
        (Value::Object(_), Value::Object(_) | Value::Null) | (Value::Null, Value::Object(_)) => {
            let probe = if old.is_null() { new } else { old };
            if node.kind(probe) == Kind::Leaf { leaf(old, new) } else { diff_fields(old, new, node) }
        }
        (Value::Array(_), Value::Array(_) | Value::Null) | (Value::Null, Value::Array(_)) => {
            let probe = if old.is_null() { new } else { old };
            if node.kind(probe) == Kind::Leaf { leaf(old, new) } else { diff_items(old, new, node) }
        }
        _ => leaf(old, new),
    }
}

fn diff_fields(old: &Value, new: &Value, node: Node<'_>) -> Comparison {
    let (old, new) = (old.as_object(), new.as_object());
    let mut out = Comparison::default();
    for (key, before) in old.into_iter().flatten() {
        let after = new.and_then(|map| map.get(key));
        let below = diff(Some(before), after, node.field(key).0);
        if !below.is_empty() {
            out.insert(field_element(key), below);
        }
    }
    for (key, after) in new.into_iter().flatten() {
        if old.is_none_or(|map| !map.contains_key(key)) {
            out.insert(field_element(key), diff(None, Some(after), node.field(key).0));
        }
    }
    out
}

/// Items of one list by element; several under one element are duplicates.
fn index<'a>(list: &'a Value, node: Node<'_>) -> BTreeMap<Box<str>, Vec<&'a Value>> {
    let mut out: BTreeMap<Box<str>, Vec<&'a Value>> = BTreeMap::new();
    for item in list.as_array().into_iter().flatten() {
        if let Ok(element) = item_element(node, item) {
            out.entry(element).or_default().push(item);
        }
    }
    out
}

fn diff_items(old: &Value, new: &Value, node: Node<'_>) -> Comparison {
    if old == new {
        return Comparison::default();
    }
    let (old, mut new) = (index(old, node), index(new, node));
    let mut out = Comparison::default();
    for (element, before) in old {
        let after = new.remove(&element).unwrap_or_default();
        out.insert(element, diff_same_item(&before, &after, node.items()));
    }
    for (element, after) in new {
        out.insert(element, diff_same_item(&[], &after, node.items()));
    }
    out
}

/// Compares the items under one element: one by one normally; duplicates count as one leaf.
fn diff_same_item(before: &[&Value], after: &[&Value], node: Node<'_>) -> Comparison {
    match (before.len(), after.len()) {
        (0 | 1, 0 | 1) => diff(before.first().copied(), after.first().copied(), node),
        (2.., 2..) => {
            let modified = if before == after { Set::new() } else { Set::leaf() };
            Comparison { modified, ..Comparison::default() }
        }
        (2.., _) => {
            let mut out = diff(None, after.first().copied(), node);
            out.removed = out.removed.union(Set::leaf());
            out
        }
        _ => {
            let mut out = diff(before.first().copied(), None, node);
            out.added = out.added.union(Set::leaf());
            out
        }
    }
}

/// Equality of JSON values: numbers by value, whatever their notation.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}
