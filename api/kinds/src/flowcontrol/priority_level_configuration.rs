//! `prioritylevelconfigurations` of flowcontrol.apiserver.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
        .status()
        .columns(vec![Column::name(), Column::text("Type"), Column::text("NominalConcurrencyShares"), Column::text("Queues"), Column::text("HandSize"), Column::text("QueueLengthLimit"), Column::text("Age")])
        .generations()
}
