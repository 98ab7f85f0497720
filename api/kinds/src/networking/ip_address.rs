//! `ipaddresses` of networking.k8s.io.

use crate::kind::{Column, Kind, NameRule};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("networking.k8s.io", "v1", "IPAddress", "ipaddresses")
        .short(&["ip"])
        .columns(vec![Column::name(), Column::text("ParentRef")])
        .names(NameRule::Any)
}
