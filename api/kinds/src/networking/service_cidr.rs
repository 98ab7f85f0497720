//! `servicecidrs` of networking.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, joined, name};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs")
        .status()
        .columns(vec![Column::name(), Column::text("CIDRs"), Column::text("Age")])
        .fixed_status_metadata()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), joined(object, "spec.cidrs", ",").into(), age(object, now)]
}
