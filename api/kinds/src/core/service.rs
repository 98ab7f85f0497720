//! `services`.

use crate::kind::{Action, Column, Kind, NameRule, Selectable, Verbs};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Service", "services")
        .short(&["svc"])
        .category("all")
        .stored_at("/registry/services/specs")
        .connect("proxy", "ServiceProxyOptions", Action::Proxy, Verbs::PROXY)
        .status()
        .columns(vec![Column::name(), Column::text("Type"), Column::text("Cluster-IP"), Column::text("External-IP"), Column::text("Port(s)"), Column::text("Age"), Column::text("Selector").wide()])
        .selectable(vec![Selectable::path("spec.clusterIP"), Selectable::path("spec.type")])
        .names(NameRule::Label1035)
        .created_by_update()
}
