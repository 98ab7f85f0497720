//! Merging an applied configuration into the live object, and removing what its applier gave up: the two halves of
//! server-side apply (KEP-555). Pure. Called by `apply`, which knows who owns what.
//!
//! An example: `ann` applied two ports before and applies one of them, changed, and a new one now. A controller owns
//! `replicas`. Items of a `listType=map` are known by their keys, here `port`, not by their place.
//!
//! ```text
//! live                          applied by ann            merge                     prune
//! replicas: 5                                             replicas: 5               replicas: 5
//! ports:                        ports:                    ports:                    ports:
//! - {port: 80, name: web}       - {port: 80, name: www}   - {port: 80, name: www}   - {port: 80, name: www}
//! - {port: 81, name: admin}                               - {port: 81, name: admin}
//!                               - {port: 82}              - {port: 82}              - {port: 82}
//! ```
//!
//! [`merge`] lays what is applied over what is live: a configured value wins, everything else stays. Then [`prune`] takes
//! away what ann owned `before` (`ports[port=81]` and below) and nobody owns `now`: had the controller set
//! `ports[port=81].name` too, the item would stay, and ann would merely own it no longer. An atomic list or map is one
//! value to both: it is replaced as a whole, and owned as a whole.

use crate::fields::{Set, field_element};
use crate::typed::{Kind, Node, is_empty, item_element};
use schema::Schema;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// The live object with the configuration laid over it: configured values win, everything else stays.
pub fn merge(live: &Value, config: &Value, schema: &Schema) -> Value {
    merged(live, config, Node::new(schema))
}

fn merged(live: &Value, config: &Value, node: Node<'_>) -> Value {
    if is_empty(Some(live)) && is_empty(Some(config)) {
        return config.clone();
    }
    match (live, config) {
        (Value::Object(old), Value::Object(new)) if node.kind(config) == Kind::Fields => {
            let mut out = Map::new();
            for (key, before) in old {
                let value = match new.get(key) {
                    Some(after) => merged(before, after, node.field(key).0),
                    None => before.clone(),
                };
                out.insert(key.clone(), value);
            }
            for (key, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                out.insert(key.clone(), after.clone());
            }
            Value::Object(out)
        }
        (Value::Array(old), Value::Array(new)) if node.kind(config) == Kind::Items => {
            Value::Array(merge_items(old, new, node))
        }
        (Value::Object(_), Value::Null) if node.kind(live) == Kind::Fields => live.clone(),
        (Value::Array(_), Value::Null) if node.kind(live) == Kind::Items => live.clone(),
        _ => config.clone(),
    }
}

/// Merges two lists by item. Configured items come in the configured order; live items stay around those they share.
fn merge_items(live: &[Value], config: &[Value], node: Node<'_>) -> Vec<Value> {
    let named = |list: &[Value]| -> Vec<Box<str>> {
        list.iter().map(|item| item_element(node, item).unwrap_or_else(|_| "?".into())).collect()
    };
    let (left, right) = (named(live), named(config));
    let mut left_places: HashMap<&str, usize> = HashMap::with_capacity(left.len());
    let mut doubled: HashSet<&str> = HashSet::new();
    for (at, element) in left.iter().enumerate() {
        if left_places.insert(element, at).is_some() {
            doubled.insert(element);
        }
    }
    let right_places: HashMap<&str, usize> = right.iter().enumerate().map(|(at, e)| (e.as_ref(), at)).collect();
    let mut shared = right.iter().map(AsRef::as_ref).filter(|e: &&str| left_places.contains_key(e)).peekable();
    let mut taken: HashSet<&str> = HashSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let both = |element: &str, at: usize| match left_places.get(element) {
        // Of doubled live items none is the one to merge with.
        Some(&old) if !doubled.contains(element) => merged(&live[old], &config[at], node.items()),
        _ => config[at].clone(),
    };
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            if left[l] == right[r] {
                taken.insert(&right[r]);
                out.push(both(&right[r], r));
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            let wanted = right_places.contains_key(left[l].as_ref());
            if wanted && shared.peek().is_some_and(|next| **next != *left[l]) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            if !right_places.contains_key(left[l].as_ref()) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if taken.contains(left[l].as_ref()) {
                l += 1;
            }
        }
        if r < right.len() {
            taken.insert(&right[r]);
            out.push(both(&right[r], r));
            if shared.peek() == Some(&right[r].as_ref()) {
                shared.next();
            }
            r += 1;
        }
    }
    out
}

/// Removes from a merged object what the applier owned `before` and nobody owns `now` (its new set included).
///
/// A field goes with everything below it. A named field counts as owned while anything below it is; an object or list
/// that somebody else owns stays, even when nothing is left in it.
pub fn prune(merged: &mut Value, schema: &Schema, before: &Set, now: &Set) {
    prune_below(merged, Node::new(schema), before, Some(now), false);
}

/// `gone`: a field above went out of the applier's hands and nobody else holds it.
fn prune_below(value: &mut Value, node: Node<'_>, before: &Set, now: Option<&Set>, gone: bool) {
    match value {
        Value::Object(map) if node.has_fields() => {
            let mut removed = Vec::new();
            for (key, child) in map.iter_mut() {
                let element = field_element(key);
                let Some(mine) = before.child(&element) else { continue };
                let (below, declared) = node.field(key);
                let others = now.and_then(|set| set.child(&element));
                let unowned = gone || !others.is_some_and(|set| set.member || declared);
                if unowned && (mine.member || declared) {
                    removed.push(key.clone());
                    continue;
                }
                prune_below(child, below, mine, others, unowned);
            }
            for key in removed {
                map.remove(&key);
            }
        }
        Value::Array(list) if node.has_items() => {
            list.retain_mut(|item| {
                let Ok(element) = item_element(node, item) else { return true };
                let Some(mine) = before.child(&element) else { return true };
                let others = now.and_then(|set| set.child(&element));
                let unowned = gone || !others.is_some_and(|set| set.member);
                if unowned && mine.member {
                    return false;
                }
                prune_below(item, node.items(), mine, others, unowned);
                true
            });
        }
        _ => {}
    }
}
