//! `deployments` of apps.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, containers, count, name, selector_text};
use crate::value::{at, int};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .category("all")
        .scale()
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Ready"),
            Column::text("Up-to-date"),
            Column::text("Available"),
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
    let number = |path| int(object, path).unwrap_or(0);
    let selector = at(object, "spec.selector").map_or_else(|| Some(String::new()), selector_text);
    vec![
        name(object),
        format!("{}/{}", number("status.readyReplicas"), number("spec.replicas")).into(),
        count(object, "status.updatedReplicas"),
        count(object, "status.availableReplicas"),
        age(object, now),
        names,
        images,
        selector.unwrap_or_else(|| "<invalid>".to_owned()).into(),
    ]
}
