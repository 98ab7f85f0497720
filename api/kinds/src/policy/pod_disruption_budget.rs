//! `poddisruptionbudgets` of policy.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, count, int_or_string, name};

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
        .hooks(Hooks { row, ..Hooks::NONE })
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
