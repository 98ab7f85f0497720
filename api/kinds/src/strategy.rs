//! The steps of a write that all kinds share, around the hooks of each: what a creator and an updater may not set,
//! generations, and what a subresource leaves alone. Objects leave every step in normal form.

use meta::FieldError;
use serde_json::{Map, Value};

use crate::hooks::Context;
use crate::kind::{Action, Kind, StatusMetadata, Subresource};
use crate::value::{at, ensure_map, int, same, set};
use crate::{defaults, metadata, normal};

impl Kind {
    /// Fills in what upstream fills in: constant defaults of the types, then what depends on other values, then the
    /// constants of what that added. Kinds made from a CustomResourceDefinition are defaulted by their schema instead.
    pub fn apply_defaults(&self, object: &mut Value) {
        let Some(message) = self.message else { return };
        defaults::constants(object, message);
        (self.hooks.default)(object);
        defaults::constants(object, message);
        normal::normalize(object, message);
    }

    /// Makes a new object what its creator may make it: no status of his, first generation. Run after mutating
    /// admission; name, uid and creation time are set by then.
    pub fn prepare_create(&self, object: &mut Value, context: &Context) {
        if self.has_status() && !self.status_on_create {
            remove(object, "status");
        }
        if !self.namespaced() {
            crate::value::remove(object, "metadata.namespace");
        }
        if self.generation {
            set(object, "metadata.generation", 1);
        }
        (self.hooks.prepare_create)(object, context);
        self.finish(object);
    }

    /// Makes an updated object what an updater may make it: status and system metadata as they were, and a new
    /// generation if the desired state changed.
    pub fn prepare_update(&self, object: &mut Value, old: &Value, context: &Context) {
        if self.has_status() {
            keep(object, old, "status");
        }
        keep_generation(object, old);
        (self.hooks.prepare_update)(object, old, context);
        self.finish(object);
        if self.generation && !self.same_state(object, old) {
            let next = int(old, "metadata.generation").unwrap_or(0) + 1;
            set(object, "metadata.generation", next);
        }
        keep_system_metadata(object, old);
    }

    /// As [`Kind::prepare_update`] for a subresource that writes the object: all that it is not for stays as it was.
    pub fn prepare_subresource(&self, sub: &Subresource, object: &mut Value, old: &Value, context: &Context) {
        if sub.action == Action::Status {
            self.keep_all_but_status(object, old);
            keep_generation(object, old);
            (self.hooks.prepare_status)(object, old, context);
        } else {
            keep_generation(object, old);
            if let Some(writes) = sub.writes {
                (writes.prepare)(object, old, context);
            }
        }
        self.finish(object);
        let state_changed = sub.action != Action::Status && self.generation && !self.same_state(object, old);
        if state_changed {
            let next = int(old, "metadata.generation").unwrap_or(0) + 1;
            set(object, "metadata.generation", next);
        }
        keep_system_metadata(object, old);
    }

    /// Everything wrong with a new object: metadata first, then the object itself.
    pub fn check(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate(self, object);
        errors.extend((self.hooks.validate)(object));
        errors
    }

    /// Everything wrong with replacing `old` by `object`.
    pub fn check_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(self, object, old);
        errors.extend((self.hooks.validate_update)(object, old));
        errors
    }

    /// Everything wrong with an update through a subresource.
    pub fn check_subresource(&self, sub: &Subresource, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(self, object, old);
        match (&sub.action, sub.writes) {
            (Action::Status, _) => errors.extend((self.hooks.validate_status)(object, old)),
            (_, Some(writes)) => errors.extend((writes.validate)(object, old)),
            _ => {}
        }
        errors
    }

    fn finish(&self, object: &mut Value) {
        match self.message {
            Some(_) => self.apply_defaults(object),
            None => normal::normalize_metadata(object),
        }
    }

    fn keep_all_but_status(&self, object: &mut Value, old: &Value) {
        let status = object.get("status").cloned();
        let new_metadata = object.get("metadata").cloned().unwrap_or_default();
        *object = old.clone();
        remove(object, "status");
        if let Some(status) = status {
            set(object, "status", status);
        }
        match self.status_metadata {
            StatusMetadata::Writable => set(object, "metadata", new_metadata),
            StatusMetadata::Fixed => keep_client_metadata(object, &new_metadata),
        }
    }

    /// Whether the desired state, which generations count, is the same: everything but metadata and status.
    fn same_state(&self, a: &Value, b: &Value) -> bool {
        let empty = Map::new();
        let (a, b) = (a.as_object().unwrap_or(&empty), b.as_object().unwrap_or(&empty));
        let state = |key: &&String| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status");
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).filter(state).collect();
        keys.dedup();
        keys.iter().all(|key| same(a.get(*key), b.get(*key)))
    }
}

/// Of the metadata a client sent, what even a fixed status update takes over: version and managed fields.
fn keep_client_metadata(object: &mut Value, new: &Value) {
    let metadata = ensure_map(object, "metadata");
    for key in ["resourceVersion", "managedFields"] {
        match new.get(key) {
            Some(value) => metadata.insert(key.to_owned(), value.clone()),
            None => metadata.remove(key),
        };
    }
}

fn keep_generation(object: &mut Value, old: &Value) {
    keep_in_metadata(object, old, "generation");
}

/// Restores what no update may change; a client may leave it out.
fn keep_system_metadata(object: &mut Value, old: &Value) {
    if at(object, "metadata.uid").is_none() {
        keep_in_metadata(object, old, "uid");
    }
    keep_in_metadata(object, old, "creationTimestamp");
    if at(old, "metadata.deletionTimestamp").is_some() {
        keep_in_metadata(object, old, "deletionTimestamp");
    }
    if at(object, "metadata.deletionGracePeriodSeconds").is_none() {
        keep_in_metadata(object, old, "deletionGracePeriodSeconds");
    }
}

fn keep_in_metadata(object: &mut Value, old: &Value, key: &str) {
    let metadata = ensure_map(object, "metadata");
    match old.get("metadata").and_then(|m| m.get(key)) {
        Some(value) => metadata.insert(key.to_owned(), value.clone()),
        None => metadata.remove(key),
    };
}

fn keep(object: &mut Value, old: &Value, key: &str) {
    crate::value::keep(object, old, key);
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

/// Puts back all metadata but version and managed fields: what upstream's subresources do that must not touch it.
pub(crate) fn fix_metadata(object: &mut Value, old: &Value) {
    let new = object.get("metadata").cloned().unwrap_or_default();
    keep(object, old, "metadata");
    keep_client_metadata(object, &new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context() -> Context {
        Context::at("2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_change_of_spec_makes_a_generation_and_status_stays() {
        let kind = crate::by_kind("apps", "v1", "ReplicaSet").unwrap();
        let mut new = json!({"metadata": {"name": "a"}, "spec": {"replicas": 1, "selector": null, "template": {}}, "status": {"replicas": 9}});
        kind.prepare_create(&mut new, &context());
        assert_eq!((&new["metadata"]["generation"], &new["status"]["replicas"]), (&json!(1), &json!(0)));
        let mut update = new.clone();
        update["status"]["replicas"] = json!(5);
        update["metadata"]["generation"] = json!(7);
        kind.prepare_update(&mut update, &new, &context());
        assert_eq!(update, new);
        update["spec"]["replicas"] = json!(2);
        kind.prepare_update(&mut update, &new, &context());
        assert_eq!(update["metadata"]["generation"], 2);
    }

    #[test]
    fn status_updates_leave_the_spec_alone() {
        let kind = crate::by_kind("apps", "v1", "ReplicaSet").unwrap();
        let old =
            json!({"metadata": {"name": "a", "generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 0}});
        let mut new = json!({"metadata": {"name": "a"}, "spec": {"replicas": 4}, "status": {"replicas": 1}});
        let sub = kind.subresource("status").unwrap();
        kind.prepare_subresource(sub, &mut new, &old, &context());
        assert_eq!((&new["spec"]["replicas"], &new["status"]["replicas"]), (&json!(1), &json!(1)));
        assert_eq!(new["metadata"]["generation"], 3);
    }
}
