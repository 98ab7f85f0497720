//! `events` of events.k8s.io: another view of the core events, which is how they are stored.

use jiff::Timestamp;
use meta::Gvk;
use serde_json::Value;

use crate::core::event::{selectable, shared};
use crate::hooks::Hooks;
use crate::kind::Kind;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    shared(Kind::namespaced_row("events.k8s.io", "v1", "Event", "events").stored_as(Gvk::new("", "v1", "Event")))
        .selectable(selectable("regarding", "reportingController"))
        .hooks(Hooks { row, to_storage, from_storage, ..Hooks::NONE })
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
