//! `endpointslices` of discovery.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, and_more, name};
use crate::value::{at, int, items, same, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .columns(vec![
            Column::name(),
            Column::text("AddressType"),
            Column::text("Ports"),
            Column::text("Endpoints"),
            Column::text("Age"),
        ])
        .generations()
        .hooks(Hooks { row, prepare_update, ..Hooks::NONE })
}

/// Ports and addresses shown before the rest is counted.
const SHOWN: usize = 3;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let port = |p: &Value| match (int(p, "port"), p.get("name").and_then(Value::as_str)) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    };
    let ports: Vec<String> = items(object, "ports").iter().map(port).collect();
    let addresses: Vec<String> = items(object, "endpoints")
        .iter()
        .flat_map(|e| items(e, "addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let list = |all: Vec<String>| and_more(&all[..all.len().min(SHOWN)], all.len(), "<unset>");
    vec![name(object), text(object, "addressType").into(), list(ports), list(addresses), age(object, now)]
}

/// Labels count as desired state too.
fn prepare_update(slice: &mut Value, old: &Value, _context: &Context) {
    if !same(at(slice, "metadata.labels"), at(old, "metadata.labels")) {
        let next = int(old, "metadata.generation").unwrap_or(0) + 1;
        set(slice, "metadata.generation", next);
    }
}
