//! Reading and writing nested fields of a dynamic object by name.
//!
//! Convenience for code that knows where a field is. Every function takes the field names from the outside in.

use serde_json::{Map, Value};

/// The value at a path, if every step is there.
pub fn get<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.as_object()?.get(*name))
}

/// The value at a path, to change it.
pub fn get_mut<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, name| value.as_object_mut()?.get_mut(*name))
}

/// The string at a path; empty when it is absent or no string.
pub fn str<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    get(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// Sets the value at a path, making the objects on the way. What is not an object on the way is replaced by one.
pub fn set(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    *entry(object, path) = value.into();
}

/// The place at a path, made (as null) with everything on the way when it is absent.
pub fn entry<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Value {
    let mut at = object;
    for name in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { unreachable!("made an object above") };
        at = map.entry(*name).or_insert(Value::Null);
    }
    at
}

/// Removes the value at a path and returns it. Objects on the way stay, even when they become empty.
pub fn remove(object: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    get_mut(object, parents)?.as_object_mut()?.remove(*last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_writes() {
        let mut object = json!({"spec": {"replicas": 3}, "kind": "X"});
        assert_eq!(str(&object, &["kind"]), "X");
        assert_eq!(str(&object, &["kind", "x"]), "");
        set(&mut object, &["metadata", "labels", "a"], "b");
        assert_eq!(str(&object, &["metadata", "labels", "a"]), "b");
        assert_eq!(remove(&mut object, &["metadata", "labels", "a"]), Some(json!("b")));
        assert_eq!(object["metadata"], json!({"labels": {}}));
        assert_eq!(remove(&mut object, &["nope", "a"]), None);
    }
}
