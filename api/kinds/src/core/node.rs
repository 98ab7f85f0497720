//! `nodes`.

use crate::kind::{Action, Column, Kind, Selectable, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "Node", "nodes")
        .short(&["no"])
        .stored_at("/registry/minions")
        .connect("proxy", "NodeProxyOptions", Action::Proxy, Verbs::PROXY)
        .status()
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Roles"), Column::text("Age"), Column::text("Version"), Column::text("Internal-IP").wide(), Column::text("External-IP").wide(), Column::text("OS-Image").wide(), Column::text("Kernel-Version").wide(), Column::text("Container-Runtime").wide()])
        .selectable(vec![Selectable::path("spec.unschedulable").or("false")])
}
