//! Sets of field paths: what `FieldsV1` says a manager owns.
//!
//! A set is a tree whose edges are path elements in their wire form: `f:name` a field, `k:{"port":80}` an item of a
//! list by its keys, `v:"x"` an item of a set by its value, `i:3` an item by its index. A node can be a member itself
//! (`.` on the wire), have members below, or both. All operations walk two sorted trees side by side.

use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::fmt::Write;

/// A set of paths below one node. The node's own membership is `member`; at the root it means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Whether the path to this node is one of the set.
    pub member: bool,
    /// Sorted by element, without empty nodes.
    children: Vec<(Box<str>, Set)>,
}

/// The wire form of a field name.
pub(crate) fn field_element(name: &str) -> Box<str> {
    let mut out = String::with_capacity(name.len() + 2);
    out.push_str("f:");
    out.push_str(name);
    out.into_boxed_str()
}

impl Set {
    /// The empty set.
    pub fn new() -> Set {
        Set::default()
    }

    /// A set that is one member without anything below.
    pub fn leaf() -> Set {
        Set { member: true, children: Vec::new() }
    }

    /// A set of plain field paths, each from the outside in.
    pub fn of_paths(paths: &[&[&str]]) -> Set {
        let mut out = Set::new();
        for path in paths {
            let mut at = &mut out;
            for name in *path {
                at = at.child_mut(&field_element(name));
            }
            at.member = true;
        }
        out
    }

    /// Whether no path is in the set; the node's own membership counts.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// The set below an element.
    pub fn child(&self, element: &str) -> Option<&Set> {
        self.position(element).ok().map(|at| &self.children[at].1)
    }

    /// Elements with the sets below them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Set)> {
        self.children.iter().map(|(element, set)| (element.as_ref(), set))
    }

    /// Adds a subtree below an element; an empty one is left out.
    pub fn insert(&mut self, element: Box<str>, set: Set) {
        if set.is_empty() {
            return;
        }
        // Objects are walked in the order of their keys, so mostly this appends.
        if self.children.last().is_none_or(|(last, _)| **last < *element) {
            self.children.push((element, set));
            return;
        }
        match self.position(&element) {
            Ok(at) => {
                let old = std::mem::take(&mut self.children[at].1);
                self.children[at].1 = old.union(set);
            }
            Err(at) => self.children.insert(at, (element, set)),
        }
    }

    fn child_mut(&mut self, element: &str) -> &mut Set {
        let at = match self.position(element) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (element.into(), Set::new()));
                at
            }
        };
        &mut self.children[at].1
    }

    fn position(&self, element: &str) -> Result<usize, usize> {
        self.children.binary_search_by(|(known, _)| known.as_ref().cmp(element))
    }

    /// Paths in either set.
    pub fn union(self, other: Set) -> Set {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut children = Vec::with_capacity(self.children.len().max(other.children.len()));
        let mut left = self.children.into_iter().peekable();
        let mut right = other.children.into_iter().peekable();
        while let (Some((l, _)), Some((r, _))) = (left.peek(), right.peek()) {
            match l.cmp(r) {
                Ordering::Less => children.extend(left.next()),
                Ordering::Greater => children.extend(right.next()),
                Ordering::Equal => {
                    if let (Some((element, l)), Some((_, r))) = (left.next(), right.next()) {
                        children.push((element, l.union(r)));
                    }
                }
            }
        }
        children.extend(left);
        children.extend(right);
        Set { member: self.member || other.member, children }
    }

    /// Paths in this set that are not in the other. What lies below a common member stays.
    pub fn minus(mut self, other: &Set) -> Set {
        self.subtract(other, false);
        self
    }

    /// Paths in this set that are neither in the other nor below a member of it.
    pub(crate) fn minus_recursively(mut self, other: &Set) -> Set {
        self.subtract(other, true);
        self
    }

    fn subtract(&mut self, other: &Set, below_too: bool) {
        self.member &= !other.member;
        if other.children.is_empty() {
            return;
        }
        self.children.retain_mut(|(element, mine)| match other.child(element) {
            None => true,
            Some(theirs) if below_too && theirs.member => false,
            Some(theirs) => {
                mine.subtract(theirs, below_too);
                !mine.is_empty()
            }
        });
    }

    /// Paths in both sets.
    pub fn intersection(&self, other: &Set) -> Set {
        let mut out = Set { member: self.member && other.member, children: Vec::new() };
        for (element, mine) in &self.children {
            if let Some(theirs) = other.child(element) {
                let both = mine.intersection(theirs);
                if !both.is_empty() {
                    out.children.push((element.clone(), both));
                }
            }
        }
        out
    }

    /// Whether some path is in both sets.
    pub fn intersects(&self, other: &Set) -> bool {
        (self.member && other.member)
            || self.children.iter().any(|(e, mine)| other.child(e).is_some_and(|theirs| mine.intersects(theirs)))
    }

    /// The members as paths in the form of messages: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut String, out: &mut Vec<String>) {
        let length = prefix.len();
        // Members of one level come before anything deeper.
        for (element, _) in self.children.iter().filter(|(_, set)| set.member) {
            push_element(prefix, element);
            out.push(prefix.clone());
            prefix.truncate(length);
        }
        for (element, set) in self.children.iter().filter(|(_, set)| !set.children.is_empty()) {
            push_element(prefix, element);
            set.collect(prefix, out);
            prefix.truncate(length);
        }
    }

    /// Reads `fieldsV1`. Elements of an unknown form are an error: such an entry belongs to a newer server.
    pub fn from_value(value: &Value) -> Option<Set> {
        let map = value.as_object()?;
        let mut out = Set { member: map.is_empty(), children: Vec::with_capacity(map.len()) };
        for (element, below) in map {
            if element == "." {
                out.member = true;
                continue;
            }
            if !matches!(element.as_bytes().get(..2)?, b"f:" | b"k:" | b"v:" | b"i:") {
                return None;
            }
            out.children.push((element.as_str().into(), Set::from_value(below)?));
        }
        out.children.sort_by(|a, b| a.0.cmp(&b.0));
        Some(out)
    }

    /// Writes `fieldsV1`.
    pub fn into_value(self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, set) in self.children {
            map.insert(element.into_string(), set.into_value());
        }
        Value::Object(map)
    }
}

/// Appends one element in the form of messages.
pub(crate) fn push_element(out: &mut String, element: &str) {
    let (kind, rest) = element.split_at(2.min(element.len()));
    match kind {
        "f:" => {
            out.push('.');
            out.push_str(rest);
        }
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            out.push('[');
            for (n, (key, value)) in keys.iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                write!(out, "{comma}{key}={value}").expect("writing to a String does not fail");
            }
            out.push(']');
        }
        "v:" => write!(out, "[={rest}]").expect("writing to a String does not fail"),
        _ => write!(out, "[{rest}]").expect("writing to a String does not fail"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> Set {
        Set::from_value(&value).expect("fields")
    }

    #[test]
    fn wire_form_round_trips() {
        let wire = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:set": {"v:\"x\"": {}}}});
        assert_eq!(set(wire.clone()).into_value(), wire);
        assert_eq!(Set::from_value(&json!({"x:y": {}})), None);
        assert_eq!(
            set(wire).paths(),
            [
                ".metadata.labels",
                ".metadata.labels.a",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
                ".spec.set[=\"x\"]"
            ]
        );
    }

    #[test]
    fn set_operations() {
        let a = set(json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}}));
        let b = set(json!({"f:a": {".": {}, "f:x": {}}, "f:c": {}}));
        assert_eq!(a.clone().minus(&b).into_value(), json!({"f:a": {"f:y": {}}, "f:b": {}}));
        assert_eq!(a.intersection(&b).into_value(), json!({"f:a": {".": {}, "f:x": {}}}));
        assert_eq!(
            a.clone().union(b.clone()).into_value(),
            json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}, "f:c": {}})
        );
        assert_eq!(a.clone().minus_recursively(&b).into_value(), json!({"f:b": {}}));
        assert!(a.intersects(&b) && !a.clone().minus(&b).intersects(&b));
    }
}
