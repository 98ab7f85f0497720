//! `csistoragecapacities` of storage.k8s.io.

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
        .columns(vec![Column::name(), Column::date("Created At")])
        .names(NameRule::Subdomain)
        .conditional_update()
        .hooks(Hooks { row: crate::print::name_and_creation, ..Hooks::NONE })
}
