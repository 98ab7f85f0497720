//! `resourcequotas`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::map;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ResourceQuota", "resourcequotas")
        .short(&["quota"])
        .status()
        .columns(vec![Column::name(), Column::text("Request"), Column::text("Limit"), Column::text("Age")])
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = map(object, "status.used");
    for (resource, hard) in map(object, "status.hard").into_iter().flatten() {
        let used = used.and_then(|u| u.get(resource)).and_then(Value::as_str).unwrap_or("0");
        let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{resource}: {used}/{}", hard.as_str().unwrap_or("")));
    }
    vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
}
