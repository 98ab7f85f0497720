//! `events` of events.k8s.io: another view of the core events, which is how they are stored.

use jiff::Timestamp;
use meta::{FieldError, Gvk, Path};
use serde_json::Value;

use crate::check::immutable;
use crate::core::event::{selectable, shared};
use crate::hooks::Hooks;
use crate::kind::Kind;
use crate::value::{at, int, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    shared(Kind::namespaced_row("events.k8s.io", "v1", "Event", "events").stored_as(Gvk::new("", "v1", "Event")))
        .selectable(selectable("regarding", "reportingController"))
        .hooks(Hooks { row, validate, validate_update, to_storage, from_storage, ..Hooks::NONE })
}

/// What the two views call the same fields: events.k8s.io, core.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn to_storage(event: &mut Value) {
    rename(event, NAMES.iter().copied());
}

fn from_storage(event: &mut Value) {
    rename(event, NAMES.iter().map(|(new, core)| (*core, *new)));
}

fn rename(event: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = event.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut core = object.clone();
    to_storage(&mut core);
    crate::core::event::row(&core, now)
}

/// What the new view asks for beyond the rules of all events: a time, a type, and nothing in the deprecated fields.
fn validate(event: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if at(event, "eventTime").is_none() {
        errors.push(FieldError::required("eventTime", ""));
    }
    let kind = text(event, "type");
    if !["Normal", "Warning"].contains(&kind) {
        errors.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
    }
    let unused = [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("deprecatedSource.component", "source"),
    ];
    for (_, shown) in unused.iter().filter(|(path, _)| at(event, path).is_some()) {
        errors.push(FieldError::invalid(shown, "", "needs to be unset"));
    }
    series(&mut errors, event);
    errors
}

fn series(errors: &mut Vec<FieldError>, event: &Value) {
    let Some(series) = at(event, "series") else { return };
    if int(series, "count").unwrap_or(0) < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if at(series, "lastObservedTime").is_none() {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
}

/// What happened does not change; how often it did may.
fn validate_update(event: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    series(&mut errors, event);
    const FIXED: [(&str, &str); 9] = [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    for (key, shown) in FIXED {
        immutable(&mut errors, Path::root(shown), at(event, key), at(old, key));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_views_are_one_event() {
        let event =
            json!({"regarding": {"kind": "Pod"}, "note": "n", "deprecatedCount": 2, "reportingController": "c"});
        let mut other = event.clone();
        to_storage(&mut other);
        let core = json!({"involvedObject": {"kind": "Pod"}, "message": "n", "count": 2, "reportingComponent": "c"});
        assert_eq!(other, core);
        from_storage(&mut other);
        assert_eq!(other, event);
    }
}
