//! `metadata.managedFields`: the entries, how they are read, sorted, stripped and capped.

use crate::fields::Set;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// Most entries of updaters; older ones are folded into [`ANCIENT`], so that objects do not grow with every tool.
pub const MAX_UPDATERS: usize = 10;

/// The manager that holds what forgotten updaters wrote.
pub(crate) const ANCIENT: &str = "ancient-changes";

/// The manager that holds what an object had before it was first applied.
pub(crate) const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Longest manager name.
pub const MAX_MANAGER: usize = 128;

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply: the manager says all that it wants, and what it no longer says is removed.
    Apply,
    /// Any other write: the manager owns what it changed.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One entry: what one manager owns by one kind of operation on one subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who: `fieldManager`, or the first part of the client's user agent. At most [`MAX_MANAGER`] bytes.
    pub manager: String,
    /// How: one manager's applies and updates are two entries.
    pub operation: Operation,
    /// `group/version` that the paths are written in.
    pub api_version: String,
    /// RFC 3339 in UTC and whole seconds; such texts sort by time.
    pub time: Option<String>,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: String,
    /// What it owns.
    pub fields: Set,
}

/// What makes two entries the same entry. Appliers keep theirs across API versions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// See [`Entry::manager`].
    pub manager: &'a str,
    /// See [`Entry::operation`].
    pub operation: Operation,
    /// See [`Entry::api_version`].
    pub api_version: &'a str,
    /// See [`Entry::subresource`].
    pub subresource: &'a str,
}

impl Identity<'_> {
    /// Whether the entry is this manager's, and would be written again.
    pub fn is(self, entry: &Entry) -> bool {
        self.operation == entry.operation
            && self.manager == entry.manager
            && self.subresource == entry.subresource
            && (self.operation == Operation::Apply || self.api_version == entry.api_version)
    }

    /// The entry of this identity that owns `fields` since `time` (RFC 3339, UTC, whole seconds).
    pub fn entry(self, fields: Set, time: Option<String>) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            operation: self.operation,
            api_version: self.api_version.to_owned(),
            time,
            subresource: self.subresource.to_owned(),
            fields,
        }
    }
}

/// Fields that belong to the system: nobody owns them.
static SYSTEM: LazyLock<Set> = LazyLock::new(|| {
    const META: [&str; 9] = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let mut paths: Vec<Vec<&str>> = vec![vec!["apiVersion"], vec!["kind"], vec!["metadata"]];
    paths.extend(META.iter().map(|name| vec!["metadata", *name]));
    Set::of_paths(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
});

/// The set without what belongs to the system.
pub fn strip(set: Set) -> Set {
    set.minus(&SYSTEM)
}

/// Reads `managedFields`; `None` when an entry is not understood.
pub fn decode(value: Option<&Value>) -> Option<Vec<Entry>> {
    let list = match value {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(value) => value.as_array()?,
    };
    let mut out: Vec<Entry> = Vec::with_capacity(list.len());
    for item in list {
        let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() || text("fieldsType") != "FieldsV1" {
            return None;
        }
        let fields = match item.get("fieldsV1") {
            None | Some(Value::Null) => Set::new(),
            Some(value) => {
                let mut fields = Set::from_value(value)?;
                fields.member = false;
                fields
            }
        };
        let identity = Identity { manager: text("manager"), operation, api_version, subresource: text("subresource") };
        let time = item.get("time").and_then(Value::as_str).map(str::to_owned);
        out.retain(|entry| !identity.is(entry));
        out.push(identity.entry(fields, time));
    }
    Some(out)
}

/// Whether `managedFields` is the one empty entry by which a client clears them.
pub fn is_reset(value: Option<&Value>) -> bool {
    match value.and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::Object(entry)]) => entry.values().all(|v| v.is_null() || v == ""),
        _ => false,
    }
}

/// Writes `managedFields` in upstream's order: appliers first, then by time, manager, version and subresource.
pub fn encode(mut entries: Vec<Entry>) -> Value {
    let key =
        |e: &Entry| (e.operation, e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone());
    if entries.len() > 1 {
        entries.sort_by_cached_key(key);
    }
    Value::Array(entries.into_iter().map(Entry::into_value).collect())
}

impl Entry {
    fn into_value(self) -> Value {
        let mut out = Map::new();
        out.insert("manager".to_owned(), Value::String(self.manager));
        out.insert("operation".to_owned(), Value::from(self.operation.as_str()));
        out.insert("apiVersion".to_owned(), Value::String(self.api_version));
        if let Some(time) = self.time {
            out.insert("time".to_owned(), Value::String(time));
        }
        out.insert("fieldsType".to_owned(), Value::from("FieldsV1"));
        out.insert("fieldsV1".to_owned(), self.fields.into_value());
        if !self.subresource.is_empty() {
            out.insert("subresource".to_owned(), Value::String(self.subresource));
        }
        Value::Object(out)
    }

    /// The manager as conflicts name it.
    pub fn describe(&self) -> String {
        let mut out = meta::text::quote(&self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {}", meta::text::quote(&self.subresource)));
        }
        if self.operation == Operation::Update {
            out.push_str(&format!(" using {}", self.api_version));
        }
        out
    }
}

/// Folds the oldest updaters into one entry a version until at most [`MAX_UPDATERS`] remain.
pub(crate) fn cap_updaters(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<usize> =
        (0..entries.len()).filter(|&at| entries[at].operation == Operation::Update).collect();
    if updaters.len() <= MAX_UPDATERS {
        return;
    }
    updaters.sort_by_key(|&at| (entries[at].time.clone(), entries[at].manager.clone()));
    let mut excess = updaters.len() - MAX_UPDATERS;
    let mut buckets: Vec<(String, usize)> = Vec::new();
    let mut dropped = Vec::new();
    for at in updaters {
        if excess == 0 {
            break;
        }
        let version = entries[at].api_version.clone();
        match buckets.iter().find(|(known, _)| *known == version) {
            None => buckets.push((version, at)),
            Some(&(_, bucket)) => {
                let fields = std::mem::take(&mut entries[at].fields);
                let time = entries[at].time.clone();
                let into = &mut entries[bucket];
                into.fields = std::mem::take(&mut into.fields).union(fields);
                (into.manager, into.subresource, into.time) = (ANCIENT.to_owned(), String::new(), time);
                dropped.push(at);
                excess -= 1;
            }
        }
    }
    dropped.sort_unstable();
    for at in dropped.into_iter().rev() {
        entries.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, operation: Operation, time: Option<&str>) -> Entry {
        let identity = Identity { manager, operation, api_version: "v1", subresource: "" };
        identity.entry(Set::of_paths(&[&[manager]]), time.map(str::to_owned))
    }

    #[test]
    fn appliers_come_first_and_no_time_is_oldest() {
        let entries = vec![
            entry("b", Operation::Update, Some("2026-01-01T00:00:00Z")),
            entry("c", Operation::Apply, Some("2026-01-01T00:00:00Z")),
            entry("d", Operation::Apply, None),
            entry("a", Operation::Update, Some("2026-01-01T00:00:00Z")),
        ];
        let value = encode(entries);
        let order: Vec<_> = value.as_array().expect("list").iter().map(|e| e["manager"].as_str()).collect();
        assert_eq!(order, [Some("d"), Some("c"), Some("a"), Some("b")]);
        assert_eq!(encode(decode(Some(&value)).expect("entries")), value);
    }

    #[test]
    fn many_updaters_collapse_into_ancient_changes() {
        let times: Vec<String> = (0..13).map(|n| format!("2026-01-01T00:00:{n:02}Z")).collect();
        let mut entries: Vec<Entry> =
            (0..13).map(|n| entry(&format!("m{n:02}"), Operation::Update, Some(times[n].as_str()))).collect();
        cap_updaters(&mut entries);
        assert_eq!(entries.len(), MAX_UPDATERS);
        assert_eq!(entries[0].manager, ANCIENT);
        assert_eq!(entries[0].fields.paths(), [".m00", ".m01", ".m02", ".m03"]);
        assert_eq!(entries[0].time.as_deref(), Some("2026-01-01T00:00:03Z"));
    }

    #[test]
    fn unknown_entries_are_not_understood() {
        assert_eq!(decode(Some(&json!([{"manager": "a"}]))), None);
        assert_eq!(decode(None), Some(Vec::new()));
        assert!(is_reset(Some(&json!([{}]))));
        assert!(!is_reset(Some(&json!([]))));
    }
}
