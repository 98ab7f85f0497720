//! Server-side apply, and the tracking of every other write: who owns which field.
//!
//! The API server calls [`update`] on every create, update and patch before it stores the object, and [`apply`] for
//! apply patches. Both take `managedFields` out of the objects they are given and write the new ones into the result.

use crate::compare::{Comparison, compare, created, field_set, same};
use crate::fields::Set;
use crate::managed::{self, BEFORE_FIRST_APPLY, Entry, Identity, Operation};
use crate::{merge, path, typed};
use meta::{Cause, Gvk, Status};
use schema::Schema;
use serde_json::{Map, Value};

/// The annotation of client-side apply.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Managed fields that this server can't read.
const NOT_UNDERSTOOD: &str = "failed to decode managed fields";

/// The manager of `kubectl apply --server-side`, for which client-side apply is migrated.
const KUBECTL: &str = "kubectl";

/// Who writes what, and when.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// `fieldManager`, or the first part of the client's user agent.
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// The type the request is written in.
    pub gvk: &'a Gvk,
    /// Of the version that the request is written in: list types and keys decide what can be owned.
    pub schema: &'a Schema,
    /// Fields that this endpoint resets (`status` on the object itself, `spec` on `/status`): writes to them do not count.
    pub reset: &'a Set,
    /// RFC 3339, UTC, whole seconds.
    pub now: &'a str,
}

impl<'a> Write<'a> {
    fn identity(&self, operation: Operation, api_version: &'a str) -> Identity<'a> {
        Identity { manager: self.manager, operation, api_version, subresource: self.subresource }
    }
}

/// The outcome of an apply.
#[derive(Debug)]
pub struct Applied {
    /// The new object, with its managed fields.
    pub object: Value,
    /// Whether anything but managed fields differs from the live object.
    pub changed: bool,
}

const MANAGED: [&str; 2] = ["metadata", "managedFields"];

fn take_managed(object: &mut Value) -> Option<Value> {
    path::remove(object, &MANAGED)
}

fn put_managed(object: &mut Value, entries: Vec<Entry>) {
    if !entries.is_empty() {
        path::set(object, &MANAGED, managed::encode(entries));
    }
}

/// Records a create (`live` is `None`), update or patch in the managed fields of `new`.
///
/// A client may hand in managed fields of its own (not through a subresource); one empty entry clears them, and an
/// object without managed fields stays without until it is applied.
pub fn update(live: Option<&Value>, new: &mut Value, write: &Write<'_>) {
    let requested = take_managed(new);
    let comparison = match live {
        Some(live) => compare(live, new, write.schema),
        None => Comparison { added: created(new, write.schema), ..Comparison::default() },
    };
    let mut comparison = comparison.without(write.reset);
    comparison.forget(&MANAGED);
    let stored = live.and_then(|live| path::get(live, &MANAGED));
    if comparison.is_empty() && requested.is_some() && requested.as_ref() == stored {
        // Nothing was written: the entries go back as they came.
        return path::set(new, &MANAGED, requested.unwrap_or_default());
    }
    if let Some(stored) = stored.filter(|stored| managed::decode(Some(stored)).is_none())
        && !brings_entries(requested.as_ref(), write)
    {
        // Perhaps a newer server's: kept as they are, until somebody brings others.
        return path::set(new, &MANAGED, stored.clone());
    }
    let Some(mut entries) = entries_to_update(live, requested.as_ref(), write) else { return };
    let api_version = write.gvk.api_version();
    record(&mut entries, comparison, write.identity(Operation::Update, &api_version), write.now);
    managed::cap_updaters(&mut entries);
    put_managed(new, entries);
}

/// Whether a client hands in managed fields that take the place of those that are stored.
fn brings_entries(requested: Option<&Value>, write: &Write<'_>) -> bool {
    let readable = || managed::decode(requested).is_some_and(|entries| !entries.is_empty());
    write.subresource.is_empty() && (managed::is_reset(requested) || readable())
}

/// The entries that a write starts from; `None` when the object is not tracked.
fn entries_to_update(live: Option<&Value>, requested: Option<&Value>, write: &Write<'_>) -> Option<Vec<Entry>> {
    let stored = || managed::decode(live.and_then(|live| path::get(live, &MANAGED))).unwrap_or_default();
    let entries = if !write.subresource.is_empty() {
        stored()
    } else if managed::is_reset(requested) {
        Vec::new()
    } else {
        managed::decode(requested).filter(|entries| !entries.is_empty()).unwrap_or_else(stored)
    };
    (live.is_none() || !entries.is_empty()).then_some(entries)
}

/// Gives what was added and changed to the writer, and takes it (and what was removed) from everybody else.
fn record(entries: &mut Vec<Entry>, comparison: Comparison, who: Identity<'_>, now: &str) {
    let Comparison { added, modified, removed } = comparison;
    let changed = added.union(modified);
    take_from(entries, &changed, &removed);
    let own = managed::strip(changed);
    if own.is_empty() {
        return;
    }
    match entries.iter_mut().find(|entry| who.is(entry)) {
        Some(entry) => {
            entry.fields = std::mem::take(&mut entry.fields).union(own);
            entry.time = Some(now.to_owned());
        }
        None => entries.push(who.entry(own, Some(now.to_owned()))),
    }
}

fn take_from(entries: &mut Vec<Entry>, changed: &Set, removed: &Set) {
    if changed.is_empty() && removed.is_empty() {
        return;
    }
    entries.retain_mut(|entry| {
        entry.fields = std::mem::take(&mut entry.fields).minus(changed).minus(removed);
        !entry.fields.is_empty()
    });
}

/// Applies a configuration: merges it into the live object, removes what the applier owned and no longer sets, and
/// makes it the owner of what it sets. Conflicts with other managers are an error unless `force`.
pub fn apply(live: Option<&Value>, config: &Value, write: &Write<'_>, force: bool) -> Result<Applied, Status> {
    check_config(config, write)?;
    let api_version = write.gvk.api_version();
    let who = write.identity(Operation::Apply, &api_version);
    let mut base = live.cloned().unwrap_or_else(|| empty_object(write.gvk));
    let stored = take_managed(&mut base);
    // Whose fields are whose is not known then: to apply would take them from everybody.
    let mut entries = managed::decode(stored.as_ref()).ok_or_else(|| Status::internal(NOT_UNDERSTOOD))?;
    if entries.is_empty() && live.is_some() {
        let added = created(&base, write.schema);
        let comparison = Comparison { added, ..Comparison::default() }.without(write.reset);
        let before = Identity { manager: BEFORE_FIRST_APPLY, operation: Operation::Update, ..who };
        record(&mut entries, comparison, before, write.now);
    }
    let own = field_set(config, write.schema).minus_recursively(write.reset);
    let previous = entries.iter().position(|entry| who.is(entry)).map(|at| entries.remove(at));

    let mut object = merge::merge(&base, config, write.schema);
    if let Some(previous) = &previous {
        prune(&mut object, previous, &own, &entries, write.schema);
    }
    let comparison = compare(&base, &object, write.schema).without(write.reset);
    let Comparison { added, modified, removed } = comparison;
    let changed_fields = added.union(modified);
    if !force {
        refuse_conflicts(&entries, &changed_fields, &base, write)?;
    }
    take_from(&mut entries, &changed_fields, &removed);

    let changed = live.is_none() || !same(&base, &object);
    let own = managed::strip(own);
    if !own.is_empty() {
        let before = previous.and_then(|entry| entry.time);
        let time = if changed { Some(write.now.to_owned()) } else { before };
        entries.push(who.entry(own, time));
    }
    if write.manager == KUBECTL {
        sync_last_applied(&mut object, config);
    }
    put_managed(&mut object, entries);
    Ok(Applied { object, changed })
}

fn empty_object(gvk: &Gvk) -> Value {
    let mut map = Map::new();
    map.insert("apiVersion".to_owned(), Value::String(gvk.api_version()));
    map.insert("kind".to_owned(), Value::String(gvk.kind.to_string()));
    Value::Object(map)
}

fn check_config(config: &Value, write: &Write<'_>) -> Result<(), Status> {
    let given = Gvk::from_api_version(path::str(config, &["apiVersion"]), path::str(config, &["kind"]));
    if given != *write.gvk {
        return Err(Status::bad_request(format!("invalid object type: {given}")));
    }
    if path::get(config, &MANAGED).is_some_and(|value| !value.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let errors = typed::check(config, write.schema);
    let why = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let (namespace, name) = (path::str(config, &["metadata", "namespace"]), path::str(config, &["metadata", "name"]));
    let message = format!("failed to create typed patch object ({namespace}/{name}; {}): {why}", write.gvk);
    Err(Status::failure(500, meta::Reason::Unknown, message))
}

/// Removes what the applier set last time, does not set now, and nobody else owns.
fn prune(object: &mut Value, previous: &Entry, own: &Set, others: &[Entry], schema: &Schema) {
    if previous.fields.clone().minus(own).is_empty() {
        return;
    }
    let held = others.iter().fold(own.clone(), |all, entry| all.union(entry.fields.clone()));
    merge::prune(object, schema, &previous.fields, &held);
}

fn refuse_conflicts(entries: &[Entry], changed: &Set, live: &Value, write: &Write<'_>) -> Result<(), Status> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut conflicts: Vec<(&Entry, Set)> = entries
        .iter()
        .map(|entry| (entry, entry.fields.intersection(changed)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if !conflicts.is_empty() && write.manager == KUBECTL {
        // Fields that client-side apply set, unchanged since, pass over to the same person's server-side apply.
        let allowed = last_applied_fields(live, write);
        for (_, fields) in &mut conflicts {
            *fields = std::mem::take(fields).minus(&allowed);
        }
        conflicts.retain(|(_, fields)| !fields.is_empty());
    }
    if conflicts.is_empty() { Ok(()) } else { Err(conflict(conflicts)) }
}

fn conflict(mut conflicts: Vec<(&Entry, Set)>) -> Status {
    conflicts.sort_by_key(|(e, _)| (e.manager.clone(), e.operation, e.api_version.clone(), e.subresource.clone()));
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (entry, fields) in &conflicts {
        let manager = entry.describe();
        lines.push(format!("conflicts with {manager}:"));
        for path in fields.paths() {
            lines.push(format!("- {path}"));
            let message = format!("conflict with {manager}");
            causes.push(Cause { reason: "FieldManagerConflict".to_owned(), message, field: path });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n")),
    };
    Status::apply_conflict(message, causes)
}

/// The fields that the last client-side apply set and that still have its values.
fn last_applied_fields(live: &Value, write: &Write<'_>) -> Set {
    let text = path::str(live, &["metadata", "annotations", LAST_APPLIED]);
    let Ok(last) = serde_json::from_str::<Value>(text) else { return Set::new() };
    if path::str(&last, &["apiVersion"]) != write.gvk.api_version() {
        return Set::new();
    }
    let Comparison { added, modified, removed } = compare(live, &last, write.schema);
    field_set(&last, write.schema).minus(&modified).minus(&added).minus(&removed)
}

/// Keeps the annotation of client-side apply, where there is one, in step with the applied configuration.
fn sync_last_applied(object: &mut Value, config: &Value) {
    let path = ["metadata", "annotations", LAST_APPLIED];
    if path::get(object, &path).is_none() {
        return;
    }
    let mut plain = config.clone();
    path::remove(&mut plain, &path);
    path::set(object, &path, format!("{plain}\n"));
}

#[cfg(test)]
mod tests;
