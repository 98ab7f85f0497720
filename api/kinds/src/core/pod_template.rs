//! `podtemplates`.

use crate::kind::{Column, Kind};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "PodTemplate", "podtemplates")
        .columns(vec![Column::name(), Column::text("Containers"), Column::text("Images"), Column::text("Pod Labels")])
        .generations()
}
