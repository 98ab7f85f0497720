//! `controllerrevisions` of apps.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "ControllerRevision", "controllerrevisions")
        .columns(vec![Column::name(), Column::text("Controller"), Column::text("Revision"), Column::text("Age")])
}
