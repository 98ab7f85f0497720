//! Defaults and nulls: fills absent fields and drops nulls where a schema does not allow them.
//!
//! The server calls this after decoding a request and after reading from storage. Defaults apply only inside objects
//! that exist (or that a default brings into existence), never across an absent parent.

use crate::node::{Schema, Type};
use serde_json::Value;

/// Removes nulls at places that are not nullable, in maps and objects; nulls in lists stay for validation to report.
/// Whole floats become integers, as which they are stored and shown.
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
                if child.is_null() && !node.nullable {
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

/// Fills absent fields from the defaults of the schema, from the outside in.
pub fn apply_defaults(value: &mut Value, schema: &Schema) {
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
                    map.insert(name.to_string(), default.clone());
                }
            }
            for (key, child) in map.iter_mut() {
                if let Some(node) = schema.child(key) {
                    fill(child, node);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items.as_deref() {
                list.iter_mut().for_each(|item| fill(item, items));
            }
        }
        _ => {}
    }
}

fn fill(value: &mut Value, node: &Schema) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
    apply_defaults(value, node);
}

/// Whether any default exists below this node: lets callers skip the walk for kinds without defaults.
pub fn has_defaults(schema: &Schema) -> bool {
    // Definitions may be recursive (JSONSchemaProps); defaults deeper than this do not occur in practice.
    const DEPTH: usize = 32;
    has_defaults_within(schema, DEPTH)
}

fn has_defaults_within(schema: &Schema, depth: usize) -> bool {
    if depth == 0
        || matches!(schema.ty, Type::String | Type::Integer | Type::Number | Type::Boolean | Type::IntOrString)
    {
        return false;
    }
    let below = |node: &Schema| node.default.is_some() || has_defaults_within(node, depth - 1);
    schema.properties.iter().any(|(_, f)| f.default.is_some() || below(&f.schema))
        || schema.additional.as_deref().is_some_and(below)
        || schema.items.as_deref().is_some_and(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use serde_json::json;

    #[test]
    fn whole_floats_are_integers_and_nulls_go() {
        let schema = parse::schema(&json!({"type": "object", "properties": {
            "a": {"type": "string"}, "b": {"type": "string", "nullable": true}}}));
        let mut value = json!({"a": null, "b": null, "n": 1.0, "l": [1000.0, 1.5]});
        drop_nulls(&mut value, &schema);
        assert_eq!(value.to_string(), r#"{"b":null,"l":[1000,1.5],"n":1}"#);
    }
}
