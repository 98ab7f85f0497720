//! Reading and shaping the dynamic object: the few steps that every default, strategy and validation repeats.
//! Absent, null and of another type are the same here; the decoder has refused wrong types before a hook runs.

use serde_json::{Map, Value};

/// The value at a dotted path; `metadata.labels` style, list elements cannot be named.
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |v, key| v.get(key)).filter(|v| !v.is_null())
}

/// The string at a dotted path, empty when there is none.
pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

/// The integer at a dotted path.
pub fn int(object: &Value, path: &str) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

/// The boolean at a dotted path, false when there is none.
pub fn flag(object: &Value, path: &str) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The elements of the list at a dotted path; empty when there is none.
pub fn items<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map at a dotted path.
pub fn map<'a>(object: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    at(object, path).and_then(Value::as_object)
}

/// Whether the map at a dotted path has entries.
pub(crate) fn has_entries(object: &Value, path: &str) -> bool {
    map(object, path).is_some_and(|m| !m.is_empty())
}

/// The value at a dotted path for change, if it is there.
pub(crate) fn at_mut<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(object, |v, key| v.get_mut(key)).filter(|v| !v.is_null())
}

/// The elements of the list at a dotted path for change; none when there is no list.
pub(crate) fn items_mut<'a>(object: &'a mut Value, path: &str) -> std::slice::IterMut<'a, Value> {
    match at_mut(object, path) {
        Some(Value::Array(list)) => list.iter_mut(),
        _ => Default::default(),
    }
}

/// The map at a dotted path, made with all its parents where absent. Something else in the way is replaced.
pub(crate) fn ensure_map<'a>(object: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let mut value = object;
    for key in path.split('.').filter(|k| !k.is_empty()) {
        value = as_map(value).entry(key).or_insert(Value::Null);
    }
    as_map(value)
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets `key` in the map unless it holds something.
pub(crate) fn default_to(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let slot = map.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

/// Sets the value at a dotted path unless something is there.
pub(crate) fn default_at(object: &mut Value, path: &str, value: impl Into<Value>) {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    default_to(ensure_map(object, parent), key, value);
}

/// Sets the value at a dotted path.
pub fn set(object: &mut Value, path: &str, value: impl Into<Value>) {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    ensure_map(object, parent).insert(key.to_owned(), value.into());
}

/// Removes the value at a dotted path and returns it.
pub fn remove(object: &mut Value, path: &str) -> Option<Value> {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = if parent.is_empty() { Some(object) } else { at_mut(object, parent) };
    parent.and_then(Value::as_object_mut).and_then(|m| m.remove(key))
}

/// Makes `new` hold what `old` holds at a top-level key, or nothing.
pub fn keep(new: &mut Value, old: &Value, key: &str) {
    match (new.as_object_mut(), old.get(key)) {
        (Some(map), Some(value)) => {
            map.insert(key.to_owned(), value.clone());
        }
        (Some(map), None) => {
            map.remove(key);
        }
        (None, _) => {}
    }
}

/// Equal when null, empty lists and absence are taken as one; an empty object differs from none, as pointers do upstream.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a.filter(|v| !nothing(v)), b.filter(|v| !nothing(v))) {
        (None, None) => true,
        (Some(Value::Object(x)), Some(Value::Object(y))) => {
            x.iter().all(|(k, v)| same(Some(v), y.get(k))) && y.iter().all(|(k, v)| x.contains_key(k) || nothing(v))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) => {
            x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(Some(v), Some(w)))
        }
        (Some(x), Some(y)) => x == y,
        _ => false,
    }
}

fn nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_null_and_empty_lists_are_the_same() {
        assert!(same(Some(&json!({"a": null, "b": []})), Some(&json!({}))));
        assert!(!same(Some(&json!({"a": {}})), Some(&json!({}))));
        assert!(same(None, Some(&json!([]))));
        assert!(!same(Some(&json!({"a": 0})), Some(&json!({}))));
    }

    #[test]
    fn defaults_fill_only_what_is_absent() {
        let mut v = json!({"spec": {"a": 1}});
        default_at(&mut v, "spec.a", 2);
        default_at(&mut v, "spec.b.c", 3);
        assert_eq!(v, json!({"spec": {"a": 1, "b": {"c": 3}}}));
    }
}
