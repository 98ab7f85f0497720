//! `csidrivers` of storage.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, joined, name};
use crate::value::{at, items, text};

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
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
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
