//! `priorityclasses` of scheduling.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, count, name};
use crate::value::{at, flag, int, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .columns(vec![
            Column::name(),
            Column::int("Value"),
            Column::boolean("Global-Default"),
            Column::text("Age"),
            Column::text("PreemptionPolicy"),
        ])
        .generations()
        .hooks(Hooks { row, validate: check, validate_update: check_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        count(object, "value"),
        boolean(object, "globalDefault"),
        age(object, now),
        text(object, "preemptionPolicy").into(),
    ]
}

const HIGHEST: i64 = 1_000_000_000;

/// Classes that the server makes itself.
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

fn check(class: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (name, value) = (text(class, "metadata.name"), int(class, "value").unwrap_or(0));
    let system = SYSTEM.iter().find(|(known, _)| *known == name);
    if name.starts_with("system-") {
        let problem = match system {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, known)) if value != *known => Some(format!("value of {name} PriorityClass must be {known}")),
            Some(_) if flag(class, "globalDefault") => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        let prefix = "priority class names with 'system-' prefix are reserved for system use only. error: ";
        errors.extend(problem.map(|problem| FieldError::forbidden("metadata.name", format!("{prefix}{problem}"))));
    } else if value > HIGHEST {
        let message = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        errors.push(FieldError::forbidden("value", message));
    }
    if let Some(Value::String(policy)) = at(class, "preemptionPolicy") {
        let policies = ["PreemptLowerPriority", "Never"];
        crate::check::among(&mut errors, Path::root("preemptionPolicy"), policy, &policies);
    }
    errors
}

fn check_update(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if int(class, "value").unwrap_or(0) != int(old, "value").unwrap_or(0) {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    let policy = |class| at(class, "preemptionPolicy");
    crate::check::immutable(&mut errors, Path::root("preemptionPolicy"), policy(class), policy(old));
    errors
}
