//! Strategic merge patch: lists merge by key, and directives (`$patch`, `$retainKeys`, `$setElementOrder/f`,
//! `$deleteFromPrimitiveList/f`) say what a plain merge cannot.
//!
//! Which lists merge, and by which key, is on the fields of the schema. Order of merged lists and error texts are
//! upstream's: items of the patch come in the patch's order, other items keep theirs around them.

use meta::text::go_value;
use meta::{Reason, Status};
use schema::{Patch, PatchStrategy, Schema};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of a schema. On an error the object may be half changed: pass a copy.
pub fn apply(object: &mut Value, patch: Value, schema: &Schema) -> Result<(), Status> {
    match (object, patch) {
        (Value::Object(original), Value::Object(patch)) => merge_objects(original, patch, schema),
        (_, Value::Null) => Ok(()),
        (_, other) => Err(Status::bad_request(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            crate::json_kind(&other)
        ))),
    }
}

fn bad_patch(message: impl Into<String>) -> Status {
    Status::failure(500, Reason::Unknown, message)
}

fn no_merge_key(item: &Value, key: &str) -> Status {
    bad_patch(format!("map: {} does not contain declared merge key: {key}", go_value(item)))
}

fn unknown_directive(directive: &Value, item: &Value) -> Status {
    bad_patch(format!("unknown patch type: {} in map: {}", go_value(directive), go_value(item)))
}

/// What the schema says of one field: its own schema and how it merges.
struct Lookup<'a> {
    schema: &'a Schema,
    patch: &'a Patch,
}

static PLAIN: Patch = Patch { strategy: PatchStrategy::None, retain_keys: false, merge_key: None };

fn lookup<'a>(node: &'a Schema, field: &str) -> Result<Lookup<'a>, Status> {
    if let Some(known) = node.properties.get(field) {
        return Ok(Lookup { schema: &known.schema, patch: &known.patch });
    }
    if let Some(values) = &node.additional {
        return Ok(Lookup { schema: values, patch: &PLAIN });
    }
    if node.properties.is_empty() {
        return Ok(Lookup { schema: &schema::ANYTHING, patch: &PLAIN });
    }
    let name = node.name.as_deref().and_then(|name| name.rsplit('.').next()).unwrap_or_default();
    let field = meta::text::quote(field);
    Err(bad_patch(format!("unable to find api field in struct {name} for the json field {field}")))
}

fn merge_objects(original: &mut Object, mut patch: Object, schema: &Schema) -> Result<(), Status> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => *original = clean_map(patch),
            Some("delete") => original.clear(),
            _ => return Err(unknown_directive(directive, &Value::Object(patch.clone()))),
        }
        return Ok(());
    }
    retain_keys(original, &mut patch)?;
    set_element_orders(original, &mut patch, schema)?;
    for (key, value) in patch {
        match directive_field(&key, DELETE_PRIMITIVE)? {
            Some(field) => delete_primitives(original, field, value, schema)?,
            None => merge_field(original, key, value, schema)?,
        }
    }
    Ok(())
}

/// The field that a directive key names, when it is that directive at all.
fn directive_field<'a>(key: &'a str, directive: &str) -> Result<Option<&'a str>, Status> {
    let Some(rest) = key.strip_prefix(directive) else { return Ok(None) };
    match rest.strip_prefix('/') {
        Some(field) => Ok(Some(field)),
        None if directive == SET_ORDER => Err(Status::bad_request("invalid patch format of setElementOrder list")),
        None => Err(Status::bad_request("invalid patch format of primitive list")),
    }
}

fn merge_field(original: &mut Object, key: String, value: Value, schema: &Schema) -> Result<(), Status> {
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    match (original.get_mut(&key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let found = lookup(schema, &key)?;
            if found.patch.strategy == PatchStrategy::Replace {
                *old = clean_map(new);
                return Ok(());
            }
            merge_objects(old, new, found.schema)
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let found = lookup(schema, &key)?;
            let merged = merge_list(std::mem::take(old), new, &found)?;
            *old = merged;
            Ok(())
        }
        (_, value) => {
            original.insert(key, take_over(value));
            Ok(())
        }
    }
}

fn delete_primitives(original: &mut Object, field: &str, value: Value, schema: &Schema) -> Result<(), Status> {
    if value.is_null() {
        original.remove(field);
        return Ok(());
    }
    let (Some(Value::Array(list)), Value::Array(delete)) = (original.get_mut(field), value) else { return Ok(()) };
    let found = lookup(schema, field)?;
    if found.patch.strategy != PatchStrategy::Merge {
        // Upstream takes the list of deletions for the new value here; no client sends that.
        *list = delete;
        return Ok(());
    }
    let delete: HashSet<String> = delete.iter().map(Value::to_string).collect();
    list.retain(|item| !delete.contains(&item.to_string()));
    Ok(())
}

/// `$retainKeys`: drops every other field; the patch itself may only set listed ones.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Status> {
    let Some(listed) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || Status::bad_request("invalid patch format of retainKeys");
    let listed = listed.as_array().ok_or_else(bad)?;
    let keep: HashSet<&str> = listed.iter().filter_map(Value::as_str).collect();
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_PRIMITIVE) || key.starts_with(SET_ORDER);
        if !value.is_null() && !directive && !keep.contains(key.as_str()) {
            return Err(bad());
        }
    }
    original.retain(|key, _| keep.contains(key.as_str()));
    Ok(())
}

/// `$setElementOrder/f`: merges list `f` of the patch now and puts the result into the given order.
fn set_element_orders(original: &mut Object, patch: &mut Object, schema: &Schema) -> Result<(), Status> {
    let keys: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for key in keys {
        let order = list_or_refuse(patch.remove(&key).unwrap_or(Value::Null))?;
        let Some(field) = directive_field(&key, SET_ORDER)? else { continue };
        let old = original.get(field).cloned().map(list_or_refuse).transpose()?;
        let new = patch.get(field).cloned().map(list_or_refuse).transpose()?;
        let found = lookup(schema, field)?;
        let merge_key = found.patch.merge_key.as_deref().unwrap_or_default();
        check_order(new.as_deref().unwrap_or_default(), &order, merge_key)?;
        let merged = match (&old, new) {
            (None, None) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => new.into_iter().filter(is_item).map(take_over).collect(),
            (Some(old), Some(new)) => merge_list(old.clone(), new, &found)?,
        };
        let ordered = arrange(merged, &order, &old.unwrap_or_default(), merge_key)?;
        patch.remove(field);
        original.insert(field.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

fn list_or_refuse(value: Value) -> Result<Vec<Value>, Status> {
    match value {
        Value::Array(list) => Ok(list),
        other => {
            let kind = match other {
                Value::Null => "<nil>",
                Value::Bool(_) => "bool",
                Value::Number(ref n) if n.is_f64() => "float64",
                Value::Number(_) => "int64",
                Value::String(_) => "string",
                _ => "map[string]interface {}",
            };
            Err(bad_patch(format!("expected a []interface {{}}, but received a {kind}")))
        }
    }
}

/// The items that a patch sets must come in the order that the patch demands.
fn check_order(patch: &[Value], order: &[Value], merge_key: &str) -> Result<(), Status> {
    let mut remaining = order.iter();
    for item in patch.iter().filter(|item| merge_key.is_empty() || item.get(DIRECTIVE).is_none()) {
        let want = identity(item, merge_key)?;
        let mut found = false;
        for candidate in remaining.by_ref() {
            if identity(candidate, merge_key)? == want {
                found = true;
                break;
            }
        }
        if !found {
            let (patch, order) = (go_value(&Value::from(patch.to_vec())), go_value(&Value::from(order.to_vec())));
            return Err(bad_patch(format!(
                "The order in patch list:\n{patch}\n doesn't match {SET_ORDER} list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

/// What makes an item of a list the same item: the value of its merge key, or the whole scalar.
fn identity(item: &Value, merge_key: &str) -> Result<String, Status> {
    if merge_key.is_empty() {
        return Ok(item.to_string());
    }
    item.get(merge_key).map(Value::to_string).ok_or_else(|| no_merge_key(item, merge_key))
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, found: &Lookup<'_>) -> Result<Vec<Value>, Status> {
    if found.patch.strategy != PatchStrategy::Merge {
        return Ok(patch.into_iter().map(clean).collect());
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !elements_are_objects(&original, &patch)? {
        let order = patch.clone();
        let mut seen = HashSet::new();
        let merged = original.iter().cloned().chain(patch).filter(|item| seen.insert(item.to_string())).collect();
        return arrange(merged, &order, &original, "");
    }
    let Some(merge_key) = found.patch.merge_key.as_deref() else {
        let name = found.schema.items.as_ref().and_then(|items| items.name.clone()).unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or_default();
        return Err(bad_patch(format!("cannot merge lists without merge key for {name}")));
    };
    let (kept, plain) = special_elements(original, patch, merge_key)?;
    let Some(plain) = plain else {
        // `$patch: replace`: what remained of the patch is the list.
        return Ok(kept.into_iter().map(clean).collect());
    };
    let order: Vec<Value> = plain.iter().map(|item| key_only(item, merge_key)).collect();
    let server_order: Vec<Value> = kept.iter().map(|item| key_only(item, merge_key)).collect();
    let items = found.schema.items.as_deref().unwrap_or(&schema::ANYTHING);
    let merged = merge_items(kept, plain, merge_key, items)?;
    arrange(merged, &order, &server_order, merge_key)
}

/// Whether all elements are objects; mixed lists and lists of lists are refused.
fn elements_are_objects(original: &[Value], patch: &[Value]) -> Result<bool, Status> {
    let mut kinds = original.iter().chain(patch).map(crate::json_kind);
    let first = kinds.next().unwrap_or("null");
    if first == "array" {
        return Err(bad_patch("lists of lists are not supported"));
    }
    if first == "null" || kinds.any(|kind| kind != first) {
        let lists = Value::from(vec![Value::from(original.to_vec()), Value::from(patch.to_vec())]);
        return Err(bad_patch(format!("list element types are not identical: {}", go_value(&lists))));
    }
    Ok(first == "object")
}

/// Carries out `$patch` elements: deletes what they name. Returns the original and the patch without them, or the
/// remaining patch alone when it replaces the list.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Option<Vec<Value>>), Status> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut doomed = HashSet::new();
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                doomed.insert(identity(&item, merge_key)?);
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(bad_patch("merging lists cannot yet be specified in the patch")),
            _ => return Err(unknown_directive(directive, &item)),
        }
    }
    if !doomed.is_empty() {
        if let Some(lacking) = original.iter().find(|old| old.get(merge_key).is_none()) {
            return Err(no_merge_key(lacking, merge_key));
        }
        // One pass, however many items the patch deletes.
        original.retain(|old| identity(old, merge_key).is_ok_and(|id| !doomed.contains(&id)));
    }
    Ok(if replace { (plain, None) } else { (original, Some(plain)) })
}

fn merge_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
    items: &Schema,
) -> Result<Vec<Value>, Status> {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(original.len());
    for (at, item) in original.iter().enumerate() {
        places.entry(identity(item, merge_key)?).or_insert(at);
    }
    for item in patch {
        let key = identity(&item, merge_key)?;
        match places.get(&key) {
            Some(&at) => {
                if let (Value::Object(old), Value::Object(new)) = (&mut original[at], item) {
                    merge_objects(old, new, items)?;
                }
            }
            None => {
                places.insert(key, original.len());
                original.push(clean(item));
            }
        }
    }
    Ok(original)
}

fn key_only(item: &Value, merge_key: &str) -> Value {
    let mut out = Object::new();
    if let Some(value) = item.get(merge_key) {
        out.insert(merge_key.to_owned(), value.clone());
    }
    Value::Object(out)
}

/// Orders a merged list: items named by `order` in that order, the others (which only the server has) in
/// `server_order`, and the two woven so that a server item stays before a named item that it was before.
fn arrange(merged: Vec<Value>, order: &[Value], server_order: &[Value], merge_key: &str) -> Result<Vec<Value>, Status> {
    let rank = |list: &[Value]| -> Result<HashMap<String, usize>, Status> {
        let mut out = HashMap::with_capacity(list.len());
        for (at, item) in list.iter().enumerate() {
            out.entry(identity(item, merge_key)?).or_insert(at);
        }
        Ok(out)
    };
    let (wanted, served) = (rank(order)?, rank(server_order)?);
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in merged {
        let id = identity(&item, merge_key)?;
        let place = served.get(&id).copied();
        match wanted.get(&id) {
            Some(&at) => named.push((at, place, item)),
            None => others.push((place, item)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(place, _)| place.unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, place, item) in named {
        while let (Some(place), Some((Some(other), _))) = (place, others.peek())
            && *other < place
        {
            out.extend(others.next().map(|(_, item)| item));
        }
        out.push(item);
    }
    out.extend(others.map(|(_, item)| item));
    Ok(out)
}

/// A value for a field that was not there: items that a list of the patch would delete do not come into being.
fn take_over(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            Value::Object(entries.map(|(key, value)| (key, take_over(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().filter(is_item).map(take_over).collect()),
        scalar => scalar,
    }
}

/// Whether an element of a list in a patch is an item, not only a directive.
fn is_item(item: &Value) -> bool {
    match (item.as_object(), item.get(DIRECTIVE)) {
        (Some(map), Some(directive)) => directive != "delete" && map.len() > 1,
        _ => true,
    }
}

/// A value that is taken over whole: without nulls and directives.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(clean_map(map)),
        Value::Array(list) => Value::Array(list.into_iter().map(clean).collect()),
        scalar => scalar,
    }
}

fn clean_map(map: Object) -> Object {
    let entries = map.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
    entries.map(|(key, value)| (key, clean(value))).collect()
}

fn is_directive(key: &str) -> bool {
    key.starts_with('$')
        && (key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_PRIMITIVE))
}

#[cfg(test)]
mod tests;
