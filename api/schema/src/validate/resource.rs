//! What every embedded resource must have, wherever it is in an object. Pure. What an update leaves as it was is not let
//! through here, as upstream makes no difference between creation and update for these.

use super::Checker;
use crate::node::Schema;
use meta::{FieldError, Path, names};
use serde_json::Value;

impl Checker<'_> {
    /// Looks for embedded resources in a value.
    pub(super) fn embedded(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
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
}
