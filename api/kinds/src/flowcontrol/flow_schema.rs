//! `flowschemas` of flowcontrol.apiserver.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas")
        .status()
        .columns(vec![Column::name(), Column::text("PriorityLevel"), Column::text("MatchingPrecedence"), Column::text("DistinguisherMethod"), Column::text("Age"), Column::text("MissingPL")])
        .generations()
}
