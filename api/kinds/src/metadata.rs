//! Rules of object metadata that hold for every kind, custom ones included: names, labels, annotations, owners,
//! finalizers, and what an update may not change.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::kind::{Kind, NameRule};
use crate::value::{at, flag, int, items, map, same, text};

/// All annotation keys and values of an object together, in bytes.
pub(crate) const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Everything wrong with the metadata of a new object.
pub fn validate(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let meta = object.get("metadata").unwrap_or(&Value::Null);
    let path = Path::root("metadata");
    let generate = text(meta, "generateName");
    if !generate.is_empty() {
        // The random suffix makes an ending valid that a whole name may not have.
        let stand_in = mask_trailing_dash(generate);
        errors.extend(
            name_errors(kind.names, &stand_in).map(|m| FieldError::invalid(path.child("generateName"), generate, m)),
        );
    }
    match text(meta, "name") {
        "" => errors.push(FieldError::required(path.child("name"), "name or generateName is required")),
        name => errors.extend(name_errors(kind.names, name).map(|m| FieldError::invalid(path.child("name"), name, m))),
    }
    match (kind.namespaced(), text(meta, "namespace")) {
        (true, "") => errors.push(FieldError::required(path.child("namespace"), "")),
        (true, ns) => {
            errors.extend(name_errors(NameRule::Label, ns).map(|m| FieldError::invalid(path.child("namespace"), ns, m)))
        }
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden(path.child("namespace"), "not allowed on this type")),
    }
    if int(meta, "generation").unwrap_or(0) < 0 {
        let message = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(path.child("generation"), int(meta, "generation").unwrap_or(0), message));
    }
    common(meta, &path, &mut errors);
    finalizers(meta, &path, &mut errors);
    if kind.message.is_some() && kind.group != "apiextensions.k8s.io" {
        standard_finalizers(meta, &path, &mut errors);
    }
    errors
}

/// Everything wrong with the metadata of an update.
pub fn validate_update(kind: &Kind, object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (meta, before) = (object.get("metadata").unwrap_or(&Value::Null), old.get("metadata").unwrap_or(&Value::Null));
    let path = Path::root("metadata");
    if at(before, "deletionTimestamp").is_some() {
        new_finalizers(meta, before, &path, &mut errors);
    }
    if text(meta, "resourceVersion").is_empty() {
        errors.push(FieldError::invalid(path.child("resourceVersion"), "", "must be specified for an update"));
    }
    let (new, was) = (int(meta, "generation").unwrap_or(0), int(before, "generation").unwrap_or(0));
    if new < was {
        errors.push(FieldError::invalid(path.child("generation"), new, "must not be decremented"));
    }
    let fixed = ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in fixed {
        if !same(meta.get(field), before.get(field)) {
            let value = meta.get(field).cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(path.child(field), value, "field is immutable"));
        }
    }
    common(meta, &path, &mut errors);
    if !same(meta.get("finalizers"), before.get("finalizers")) {
        finalizers(meta, &path, &mut errors);
        if kind.message.is_some() && kind.group != "apiextensions.k8s.io" {
            standard_finalizers(meta, &path, &mut errors);
        }
    }
    errors
}

/// Labels, annotations and owners, checked on create and update alike.
fn common(meta: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    labels(map(meta, "labels"), &path.child("labels"), errors);
    annotations(map(meta, "annotations"), &path.child("annotations"), errors);
    owners(items(meta, "ownerReferences"), &path.child("ownerReferences"), errors);
}

/// Keys are qualified names, values label values.
pub fn labels(labels: Option<&serde_json::Map<String, Value>>, path: &Path, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.into_iter().flatten() {
        errors.extend(names::qualified_name(key).into_iter().map(|m| FieldError::invalid(path, key.as_str(), m)));
        let value = value.as_str().unwrap_or("");
        let wrong = names::label_value(value).into_iter();
        errors.extend(wrong.map(|m| FieldError::invalid(path, value, m)));
    }
}

/// Keys are qualified names in any case; all together have a limit.
pub fn annotations(annotations: Option<&serde_json::Map<String, Value>>, path: &Path, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        let wrong = names::qualified_name(&key.to_lowercase()).into_iter();
        errors.extend(wrong.map(|m| FieldError::invalid(path, key.as_str(), m)));
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(path, ANNOTATIONS_LIMIT as i64));
    }
}

fn owners(references: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    let mut controller: Option<String> = None;
    for (i, reference) in references.iter().enumerate() {
        let path = path.index(i);
        let version = text(reference, "apiVersion");
        if version.is_empty() {
            errors.push(FieldError::required(path.child("apiVersion"), "must not be empty"));
        } else if version.matches('/').count() > 1 || version.ends_with('/') {
            let message = "must be <group>/<version> or <version>";
            errors.push(FieldError::invalid(path.child("apiVersion"), version, message));
        }
        for field in ["kind", "name", "uid"] {
            if text(reference, field).is_empty() {
                errors.push(FieldError::required(path.child(field), "must not be empty"));
            }
        }
        if version == "v1" && text(reference, "kind") == "Event" {
            let message = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, reference.clone(), message));
        }
    }
    for reference in references.iter().filter(|r| flag(r, "controller")) {
        let name = format!("{}/{}", text(reference, "kind"), text(reference, "name"));
        match &controller {
            None => controller = Some(name),
            Some(first) => {
                let message = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                errors.push(FieldError::invalid(path, references.to_vec(), message));
            }
        }
    }
}

fn finalizers(meta: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let path = path.child("finalizers");
    let list = items(meta, "finalizers");
    for finalizer in list.iter().filter_map(Value::as_str) {
        errors.extend(names::qualified_name(finalizer).into_iter().map(|m| FieldError::invalid(path, finalizer, m)));
    }
    let has = |name: &str| list.iter().any(|f| f.as_str() == Some(name));
    if has("orphan") && has("foregroundDeletion") {
        let message = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, list.to_vec(), message));
    }
}

/// Built-in kinds, but for definitions of custom ones, take qualified finalizers and the three that upstream itself knows.
fn standard_finalizers(meta: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let path = path.child("finalizers");
    let strange = |f: &&str| !f.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(f);
    let list = items(meta, "finalizers").iter().map(|f| f.as_str().unwrap_or(""));
    for (i, finalizer) in list.enumerate().filter(|(_, f)| strange(f)) {
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path.index(i), finalizer, message));
    }
}

/// An object that is being deleted may lose finalizers and gain none.
fn new_finalizers(meta: &Value, before: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let old = items(before, "finalizers");
    let mut extra: Vec<String> =
        items(meta, "finalizers").iter().filter(|f| !old.contains(f)).map(|f| f.to_string()).collect();
    extra.sort_unstable();
    extra.dedup();
    if !extra.is_empty() {
        let list = extra.join(", ");
        let message = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        errors.push(FieldError::forbidden(path.child("finalizers"), message));
    }
}

/// A prefix for generated names as upstream checks it: an ending dash and what stands before it count as a letter.
fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-').map(|rest| rest.char_indices().next_back()) {
        Some(Some((at, _))) => format!("{}a", &prefix[..at]),
        _ => prefix.to_owned(),
    }
}

/// Why `name` breaks the rule, in upstream's words.
pub(crate) fn name_errors(rule: NameRule, name: &str) -> impl Iterator<Item = String> {
    let errors = match rule {
        NameRule::Subdomain => names::dns1123_subdomain(name),
        NameRule::Label => names::dns1123_label(name),
        NameRule::Label1035 => names::dns1035_label(name),
        NameRule::PathSegment => names::path_segment(name),
        NameRule::Any => Vec::new(),
    };
    errors.into_iter()
}
