//! `csidrivers` of storage.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, joined, name};
use crate::value::{at, int, items, same, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "CSIDriver", "csidrivers")
        .columns(vec![
            Column::name(),
            Column::boolean("AttachRequired"),
            Column::boolean("PodInfoOnMount"),
            Column::boolean("StorageCapacity"),
            Column::text("TokenRequests"),
            Column::boolean("RequiresRepublish"),
            Column::text("Modes"),
            Column::text("Age"),
        ])
        .conditional_update()
        .hooks(Hooks { row, prepare_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let modes = joined(object, "spec.volumeLifecycleModes", ",");
    let audiences =
        items(object, "spec.tokenRequests").iter().map(|t| text(t, "audience")).collect::<Vec<_>>().join(",");
    let tokens = if at(object, "spec.tokenRequests").is_some() { audiences } else { "<unset>".to_owned() };
    vec![
        name(object),
        at(object, "spec.attachRequired").and_then(Value::as_bool).unwrap_or(true).into(),
        boolean(object, "spec.podInfoOnMount"),
        boolean(object, "spec.storageCapacity"),
        tokens.into(),
        boolean(object, "spec.requiresRepublish"),
        if modes.is_empty() { "<none>".to_owned() } else { modes }.into(),
        age(object, now),
    ]
}

/// Generations are counted from the first change on.
fn prepare_update(driver: &mut Value, old: &Value, _context: &Context) {
    if !same(at(driver, "spec"), at(old, "spec")) {
        let next = int(old, "metadata.generation").unwrap_or(0) + 1;
        set(driver, "metadata.generation", next);
    }
}
