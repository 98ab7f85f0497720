//! `endpointslices` of discovery.k8s.io.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .columns(vec![Column::name(), Column::text("AddressType"), Column::text("Ports"), Column::text("Endpoints"), Column::text("Age")])
        .generations()
}
