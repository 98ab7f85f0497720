//! Sets hold a value once, list maps a key once. Pure. An object that had something twice before an update may keep it
//! and get more: that is upstream's rule, for the object as a whole.

use super::Checker;
use crate::node::{ListType, Schema};
use meta::{FieldError, Path};
use serde_json::Value;
use std::collections::HashSet;

impl Checker<'_> {
    /// Judges all lists of an object.
    pub(super) fn lists(&mut self, new: &Value, old: Option<&Value>, schema: &Schema) {
        let root = Path::root("");
        let mark = self.errors.len();
        self.unique(new, schema, &root);
        if self.errors.len() > mark
            && let Some(old) = old
        {
            let mut before = Checker::new(self.base, self.budget);
            before.unique(old, schema, &root);
            if !before.errors.is_empty() {
                self.errors.truncate(mark);
            }
        }
    }

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
