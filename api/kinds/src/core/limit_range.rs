//! `limitranges`.

use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::value::{ensure_map, items_mut, map, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "LimitRange", "limitranges")
        .short(&["limits"])
        .columns(vec![Column::name(), Column::date("Created At")])
        .created_by_update()
        .hooks(Hooks { row: crate::print::name_and_creation, default, ..Hooks::NONE })
}

/// Of a container limit, what is missing follows: limits from maxima, requests from limits, then from minima.
fn default(range: &mut Value) {
    for item in items_mut(range, "spec.limits").filter(|i| text(i, "type") == "Container") {
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let Some(known) = map(item, from).cloned() else { continue };
            let list = ensure_map(item, to);
            for (name, amount) in known {
                list.entry(name).or_insert(amount);
            }
        }
    }
}
