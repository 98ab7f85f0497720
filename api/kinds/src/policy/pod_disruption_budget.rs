//! `poddisruptionbudgets` of policy.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::apps::workload::{int_or_percent, not_more_than_all};
use crate::check::{label_selector, not_negative, one_of_if_set};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, count, int_or_string, name};
use crate::value::at;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Min Available"),
            Column::text("Max Unavailable"),
            Column::int("Allowed Disruptions"),
            Column::text("Age"),
        ])
        .conditional_update()
        .generations()
        .hooks(Hooks {
            row,
            validate: check,
            validate_update: |o, _| check(o),
            validate_status: |o, _| check_status(o),
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        int_or_string(object, "spec.minAvailable", "N/A"),
        int_or_string(object, "spec.maxUnavailable", "N/A"),
        count(object, "status.disruptionsAllowed"),
        age(object, now),
    ]
}

fn check(budget: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(budget, "spec").unwrap_or(&Value::Null);
    let amounts = ["minAvailable", "maxUnavailable"].map(|key| (key, at(spec, key)));
    if amounts.iter().all(|(_, amount)| amount.is_some()) {
        let message = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(path, spec.clone(), message));
    }
    for (key, amount) in amounts {
        if let Some(amount) = amount {
            int_or_percent(&mut errors, path.child(key), amount);
            not_more_than_all(&mut errors, path.child(key), amount);
        }
    }
    label_selector(&mut errors, path.child("selector"), at(spec, "selector"));
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    one_of_if_set(&mut errors, &path, spec, "unhealthyPodEvictionPolicy", &policies);
    errors
}

fn check_status(budget: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = at(budget, "status").unwrap_or(&Value::Null);
    for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        not_negative(&mut errors, &Path::root("status"), status, key);
    }
    errors
}
