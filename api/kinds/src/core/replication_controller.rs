//! `replicationcontrollers`.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::pod_spec::defaults::spec_at;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, containers, count, labels, name};
use crate::value::{at, default_at, has_entries};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .category("all")
        .stored_at("/registry/controllers")
        .scale()
        .status()
        .columns(vec![
            Column::name(),
            Column::int("Desired"),
            Column::int("Current"),
            Column::int("Ready"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
            Column::text("Selector").wide(),
        ])
        .selectable(vec![Selectable::path("status.replicas").or("0")])
        .generations()
        .hooks(Hooks { row, default, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    vec![
        name(object),
        count(object, "spec.replicas"),
        count(object, "status.replicas"),
        count(object, "status.readyReplicas"),
        age(object, now),
        names,
        images,
        labels(object, "spec.selector"),
    ]
}

/// Selector and labels are those of the template unless given.
fn default(rc: &mut Value) {
    if let Some(labels) = at(rc, "spec.template.metadata.labels").cloned() {
        for path in ["spec.selector", "metadata.labels"] {
            if !has_entries(rc, path) {
                default_at(rc, path, labels.clone());
            }
        }
    }
    spec_at(rc, "spec.template.spec");
}
