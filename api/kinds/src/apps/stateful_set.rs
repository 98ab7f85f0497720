//! `statefulsets` of apps.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, containers, name};
use crate::value::int;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .category("all")
        .scale()
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Ready"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
        ])
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    let number = |path| int(object, path).unwrap_or(0);
    let ready = format!("{}/{}", number("status.readyReplicas"), number("spec.replicas"));
    vec![name(object), ready.into(), age(object, now), names, images]
}
