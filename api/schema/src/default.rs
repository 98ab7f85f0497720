//! Defaults and nulls: fills absent fields and drops nulls where a schema does not allow them.
//!
//! The server calls this after decoding a request and after reading from storage. Defaults apply only inside objects
//! that exist (or that a default brings into existence), never across an absent parent.

use crate::node::Schema;
use serde_json::Value;

/// Removes nulls at places that are not nullable and have no default, in maps and objects; nulls in lists stay for
/// validation to report. Whole floats become integers, as which they are stored and shown.
pub fn drop_nulls(value: &mut Value, schema: &Schema) {
    whole_numbers(value);
    drop_nulls_below(value, schema);
}

fn whole_numbers(value: &mut Value) {
    // Beyond this a float has no exact integer.
    const LARGEST: f64 = 9.0e15;
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if float.fract() == 0.0 && float.abs() < LARGEST {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn drop_nulls_below(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            let mut dropped = Vec::new();
            for (key, child) in map.iter_mut() {
                let Some(node) = schema.child(key) else { continue };
                // One with a default becomes that, be it the value of a map or of a field.
                if child.is_null() && !node.nullable && node.default.is_none() {
                    dropped.push(key.clone());
                } else {
                    drop_nulls_below(child, node);
                }
            }
            for key in dropped {
                map.remove(&key);
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items.as_deref() {
                list.iter_mut().for_each(|item| drop_nulls_below(item, items));
            }
        }
        _ => {}
    }
}

/// Most bytes that the defaults of a custom resource may add to one object, about: as much as a request may carry. A list
/// of a million empty items, each with a default of a kilobyte, is a gigabyte otherwise.
pub const MAX_DEFAULTED: usize = 3 * 1024 * 1024;

/// The defaults of a schema would add more than [`MAX_DEFAULTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// Fills absent fields from the defaults of the schema, from the outside in. On an error the object is half filled.
pub fn apply_defaults(value: &mut Value, schema: &Schema) -> Result<(), TooMuch> {
    Filling { room: MAX_DEFAULTED }.inside(value, schema)
}

struct Filling {
    room: usize,
}

impl Filling {
    fn inside(&mut self, value: &mut Value, schema: &Schema) -> Result<(), TooMuch> {
        match value {
            Value::Object(map) => {
                for (name, field) in schema.properties.iter() {
                    let Some(default) = field.default.as_ref().or(field.schema.default.as_ref()) else { continue };
                    let absent = match map.get(name.as_ref()) {
                        None => true,
                        Some(Value::Null) => !field.schema.nullable,
                        Some(_) => false,
                    };
                    if absent {
                        self.take(name.len())?;
                        map.insert(name.to_string(), self.copy(default)?);
                    }
                }
                for (key, child) in map.iter_mut() {
                    if let Some(node) = schema.child(key) {
                        self.fill(child, node)?;
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = schema.items.as_deref() {
                    list.iter_mut().try_for_each(|item| self.fill(item, items))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn fill(&mut self, value: &mut Value, node: &Schema) -> Result<(), TooMuch> {
        if value.is_null()
            && !node.nullable
            && let Some(default) = &node.default
        {
            *value = self.copy(default)?;
        }
        self.inside(value, node)
    }

    fn copy(&mut self, default: &Value) -> Result<Value, TooMuch> {
        self.weigh(default)?;
        Ok(default.clone())
    }

    fn weigh(&mut self, value: &Value) -> Result<(), TooMuch> {
        // A scalar, or the brackets of a list or map, with what is between it and the next.
        const ONE: usize = 4;
        self.take(ONE)?;
        match value {
            Value::String(text) => self.take(text.len()),
            Value::Array(list) => list.iter().try_for_each(|item| self.weigh(item)),
            Value::Object(map) => map.iter().try_for_each(|(key, item)| {
                self.take(key.len())?;
                self.weigh(item)
            }),
            _ => Ok(()),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.room = self.room.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use serde_json::json;

    #[test]
    fn defaults_do_not_multiply_an_object_without_end() {
        let schema = parse::schema(&json!({"type": "array", "items": {"type": "object", "properties": {
            "a": {"type": "string", "default": "x".repeat(1000)}}}}));
        let list = |items: usize| Value::Array(vec![json!({}); items]);
        let mut value = list(3_000);
        assert_eq!(apply_defaults(&mut value, &schema), Ok(()));
        assert_eq!(value[2_999]["a"].as_str().map(str::len), Some(1000));
        assert_eq!(apply_defaults(&mut list(100_000), &schema), Err(TooMuch));
    }

    #[test]
    fn whole_floats_are_integers_and_nulls_go() {
        let schema = parse::schema(&json!({"type": "object", "properties": {
            "a": {"type": "string"}, "b": {"type": "string", "nullable": true}}}));
        let mut value = json!({"a": null, "b": null, "n": 1.0, "l": [1000.0, 1.5]});
        drop_nulls(&mut value, &schema);
        assert_eq!(value.to_string(), r#"{"b":null,"l":[1000,1.5],"n":1}"#);
    }
}
