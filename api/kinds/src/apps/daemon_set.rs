//! `daemonsets` of apps.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, containers, count, labels, name, selector};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .category("all")
        .status()
        .columns(vec![
            Column::name(),
            Column::int("Desired"),
            Column::int("Current"),
            Column::int("Ready"),
            Column::int("Up-to-date"),
            Column::int("Available"),
            Column::text("Node Selector"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
            Column::text("Selector").wide(),
        ])
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    vec![
        name(object),
        count(object, "status.desiredNumberScheduled"),
        count(object, "status.currentNumberScheduled"),
        count(object, "status.numberReady"),
        count(object, "status.updatedNumberScheduled"),
        count(object, "status.numberAvailable"),
        labels(object, "spec.template.spec.nodeSelector"),
        age(object, now),
        names,
        images,
        selector(object, "spec.selector"),
    ]
}
