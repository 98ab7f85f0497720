//! `daemonsets` of apps.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::pod_spec::defaults::spec_at;
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, containers, count, labels, name, selector};
use crate::value::{at, ensure_map, map, same, text};

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
        .hooks(Hooks { row, default, prepare_create, prepare_update, ..Hooks::NONE })
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

/// Counts versions of the template; an annotation since apps/v1 has no field for it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn default(set: &mut Value) {
    if text(set, "spec.updateStrategy.type") == "RollingUpdate" {
        ensure_map(set, "spec.updateStrategy.rollingUpdate");
    }
    spec_at(set, "spec.template.spec");
}

fn template_generation(set: &Value) -> i64 {
    let annotation = map(set, "metadata.annotations").and_then(|a| a.get(TEMPLATE_GENERATION));
    annotation.and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn annotate(set: &mut Value, generation: i64) {
    let annotations = ensure_map(set, "metadata.annotations");
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
}

fn prepare_create(set: &mut Value, _context: &Context) {
    let generation = template_generation(set).max(1);
    annotate(set, generation);
}

fn prepare_update(set: &mut Value, old: &Value, _context: &Context) {
    let changed = !same(at(set, "spec.template"), at(old, "spec.template"));
    annotate(set, template_generation(old) + i64::from(changed));
}
