//! Which old value a new one is to be held against, by the rules of upstream's `CorrelatedObject` (KEP-4008). Pure.
//!
//! | in | correlated by |
//! |---|---|
//! | an object | the field's name |
//! | a list of type `map` | the values of its keys, wherever the item stands |
//! | any other list | nothing: such a list changes as a whole |

use crate::node::{ListType, Schema};
use serde_json::Value;
use std::collections::HashMap;

/// The old items of a list of type `map`.
pub(super) struct Items<'a> {
    old: &'a [Value],
    keys: Vec<&'a str>,
    /// Made when an item stands elsewhere than it did: most lists keep their order.
    index: Option<HashMap<String, &'a Value>>,
}

impl<'a> Items<'a> {
    /// `None` for lists whose items have nothing to be correlated by.
    pub(super) fn of(old: &'a [Value], schema: &'a Schema) -> Option<Items<'a>> {
        let keyed = schema.list_type == ListType::Map && !schema.list_map_keys.is_empty();
        let keys = || schema.list_map_keys.iter().map(AsRef::as_ref).collect();
        keyed.then(|| Items { old, keys: keys(), index: None })
    }

    /// The old item with the keys of a new one that stands at `place`.
    pub(super) fn get(&mut self, place: usize, new: &Value) -> Option<&'a Value> {
        let same = |old: &&Value| self.keys.iter().all(|key| new.get(key) == old.get(key));
        if let Some(old) = self.old.get(place).filter(|old| new.is_object() && same(old)) {
            return Some(old);
        }
        let wanted = identity(&self.keys, new)?;
        let (old, keys) = (self.old, &self.keys);
        let index = self.index.get_or_insert_with(|| {
            // The first of several with the same keys is meant.
            let known = old.iter().rev().filter_map(|item| Some((identity(keys, item)?, item)));
            known.collect()
        });
        index.get(&wanted).copied()
    }
}

/// The keys of an item as one text; none for what is no object or has no key.
fn identity(keys: &[&str], item: &Value) -> Option<String> {
    let map = item.as_object()?;
    let values: Vec<&Value> = keys.iter().map(|key| map.get(*key).unwrap_or(&Value::Null)).collect();
    if values.iter().all(|value| value.is_null()) {
        return None;
    }
    serde_json::to_string(&values).ok()
}
