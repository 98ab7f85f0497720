//! `poddisruptionbudgets` of policy.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .status()
        .columns(vec![Column::name(), Column::text("Min Available"), Column::text("Max Unavailable"), Column::int("Allowed Disruptions"), Column::text("Age")])
        .conditional_update()
        .generations()
}
