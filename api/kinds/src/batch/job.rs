//! `jobs` of batch.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, condition_true, containers, name, selector, time};
use crate::value::{at, int};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("batch", "v1", "Job", "jobs")
        .category("all")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Status"),
            Column::text("Completions"),
            Column::text("Duration"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
            Column::text("Selector").wide(),
        ])
        .selectable(vec![Selectable::at("status.successful", &["status.succeeded"]).or("0")])
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    let succeeded = int(object, "status.succeeded").unwrap_or(0);
    let completions = match (int(object, "spec.completions"), int(object, "spec.parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = time(object, "status.startTime").map(|start| {
        let end = time(object, "status.completionTime").unwrap_or(now);
        meta::duration::human(end.as_second() - start.as_second())
    });
    vec![
        name(object),
        status(object).into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        age(object, now),
        names,
        images,
        selector(object, "spec.selector"),
    ]
}

fn status(object: &Value) -> &'static str {
    if condition_true(object, "Complete") {
        "Complete"
    } else if condition_true(object, "Failed") {
        "Failed"
    } else if at(object, "metadata.deletionTimestamp").is_some() {
        "Terminating"
    } else if condition_true(object, "Suspended") {
        "Suspended"
    } else if condition_true(object, "FailureTarget") {
        "FailureTarget"
    } else if condition_true(object, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}
