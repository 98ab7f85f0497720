//! What ReplicaSets and ReplicationControllers share: rows of the table, their cells, and checks, some of which hold
//! for other controllers of pods too. The two differ in their selectors.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::{Errors, not_negative};
use crate::core::pod_spec::warnings;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{age, containers, count, name};
use crate::value::{at, int, text};

/// The row of a kind that keeps replicas of a pod running.
pub(crate) fn kind(kind: Kind, hooks: Hooks) -> Kind {
    kind.category("all")
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
        .hooks(Hooks {
            validate_status: |o, _| status(o),
            warnings: |o, old| warnings::of_controller(o, old, "spec.template"),
            ..hooks
        })
}

/// The cells of a table row; the kinds write their selectors differently.
pub(crate) fn row(object: &Value, now: Timestamp, selector: Value) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    vec![
        name(object),
        count(object, "spec.replicas"),
        count(object, "status.replicas"),
        count(object, "status.readyReplicas"),
        age(object, now),
        names,
        images,
        selector,
    ]
}

/// Counts that are not negative.
pub(crate) fn counts(errors: &mut Errors, path: &Path, spec: &Value) {
    for key in ["replicas", "minReadySeconds"] {
        not_negative(errors, path, spec, key);
    }
}

/// Templates of pods that are kept running restart always and have no deadline.
pub(crate) fn always_running(errors: &mut Errors, path: Path, template: &Value, owner: &str) {
    let spec = path.child("spec");
    let policy = text(template, "spec.restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(spec.child("restartPolicy"), policy, ["Always"]));
    }
    if at(template, "spec.activeDeadlineSeconds").is_some() {
        let message = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.push(FieldError::forbidden(spec.child("activeDeadlineSeconds"), message));
    }
}

/// Counts in the status of a controller of replicas agree with each other.
pub(crate) fn status(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("status");
    let status = at(object, "status").unwrap_or(&Value::Null);
    let count = |key: &str| int(status, key).unwrap_or(0);
    for key in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"] {
        not_negative(&mut errors, &path, status, key);
    }
    let mut at_most = |key: &str, most: &str, message: &str| {
        if count(key) > count(most) {
            errors.push(FieldError::invalid(path.child(key), count(key), message));
        }
    };
    for key in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        at_most(key, "replicas", "cannot be greater than status.replicas");
    }
    at_most("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas");
    errors
}
