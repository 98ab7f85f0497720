//! `daemonsets` of apps.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::apps::workload::{
    amount, int_or_percent, matches_template, not_decremented, not_more_than_all, selects_something,
};
use crate::check::{Errors, immutable, label_selector, not_negative};
use crate::core::pod_spec::defaults::spec_at;
use crate::core::pod_spec::warnings;
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, containers, count, labels, name, selector};
use crate::value::{at, ensure_map, int, map, same, text};

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
        .hooks(Hooks {
            row,
            default,
            prepare_create,
            prepare_update,
            validate: check,
            validate_update: check_update,
            validate_status: check_status,
            warnings: |o, old| warnings::of_changed(o, old, "spec.template"),
            ..Hooks::NONE
        })
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

fn check(set: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(set, "spec").unwrap_or(&Value::Null);
    let selector = at(spec, "selector");
    label_selector(&mut errors, path.child("selector"), selector);
    let template_path = path.child("template");
    matches_template(&mut errors, template_path, spec);
    if let Some(selector) = selector {
        selects_something(&mut errors, path.child("selector"), selector, "daemonset");
    }
    let template = at(spec, "template");
    crate::core::pod_spec::template(&mut errors, template_path, template);
    crate::core::replicas::always_running(&mut errors, template_path, template.unwrap_or(&Value::Null), "DaemonSet");
    not_negative(&mut errors, &path, spec, "minReadySeconds");
    not_negative(&mut errors, &path, spec, "revisionHistoryLimit");
    strategy(&mut errors, path.child("updateStrategy"), at(spec, "updateStrategy").unwrap_or(&Value::Null));
    errors
}

fn strategy(errors: &mut Errors, path: Path, strategy: &Value) {
    let rolling = path.child("rollingUpdate");
    match (text(strategy, "type"), at(strategy, "rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(FieldError::required(rolling, "")),
        ("RollingUpdate", Some(update)) => {
            for key in ["maxUnavailable", "maxSurge"] {
                let value = at(update, key).unwrap_or(&Value::Null);
                int_or_percent(errors, rolling.child(key), value);
                not_more_than_all(errors, rolling.child(key), value);
            }
            let surge = at(update, "maxSurge");
            match (amount(at(update, "maxUnavailable")) != 0, amount(surge) != 0) {
                (true, true) => {
                    let message = "may not be set when maxUnavailable is non-zero";
                    let surge = surge.cloned().unwrap_or(Value::Null);
                    errors.push(FieldError::invalid(rolling.child("maxSurge"), surge, message));
                }
                (false, false) => {
                    let message = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(rolling.child("maxUnavailable"), message));
                }
                _ => {}
            }
        }
        _ => errors.push(FieldError::not_supported(path, strategy.clone(), ["RollingUpdate", "OnDelete"])),
    }
}

fn check_update(set: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(set);
    let spec = Path::root("spec");
    immutable(&mut errors, spec.child("selector"), at(set, "spec.selector"), at(old, "spec.selector"));
    errors
}

fn check_status(set: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("status");
    let status = at(set, "status").unwrap_or(&Value::Null);
    let counts = ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];
    let more = ["observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable"];
    for key in counts.iter().chain(&more).chain(&["collisionCount"]) {
        not_negative(&mut errors, &path, status, key);
    }
    let (new, old) = (int(status, "collisionCount"), int(old, "status.collisionCount"));
    not_decremented(&mut errors, path.child("collisionCount"), new, old);
    errors
}
