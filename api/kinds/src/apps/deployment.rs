//! `deployments` of apps.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::pod_spec::defaults::spec_at;
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, containers, count, name, selector_text};
use crate::value::{at, ensure_map, int, same, set, text};

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
        .hooks(Hooks { row, default, prepare_update, prepare_status, ..Hooks::NONE })
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

fn default(deployment: &mut Value) {
    if text(deployment, "spec.strategy.type") == "RollingUpdate" {
        ensure_map(deployment, "spec.strategy.rollingUpdate");
    }
    spec_at(deployment, "spec.template.spec");
}

/// Annotations count as desired state too, since rollouts copy them.
fn prepare_update(deployment: &mut Value, old: &Value, _context: &Context) {
    if !same(at(deployment, "metadata.annotations"), at(old, "metadata.annotations")) {
        let next = int(old, "metadata.generation").unwrap_or(0) + 1;
        set(deployment, "metadata.generation", next);
    }
}

/// Labels change through the main resource only.
fn prepare_status(deployment: &mut Value, old: &Value, _context: &Context) {
    let metadata = ensure_map(deployment, "metadata");
    match at(old, "metadata.labels") {
        Some(labels) => drop(metadata.insert("labels".to_owned(), labels.clone())),
        None => drop(metadata.remove("labels")),
    }
}
