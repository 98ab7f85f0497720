//! `events`.

use crate::kind::{Column, Kind, Selectable};

/// Events expire one hour after their last write.
pub const EVENT_TTL_SECONDS: u32 = 3600;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Event", "events")
        .short(&["ev"])
        .expires(EVENT_TTL_SECONDS)
        .columns(vec![Column::text("Last Seen"), Column::text("Type"), Column::text("Reason"), Column::text("Object"), Column::text("Subobject").wide(), Column::text("Source").wide(), Column::text("Message"), Column::text("First Seen").wide(), Column::text("Count").wide(), Column::name().wide()])
        .selectable(vec![Selectable::path("involvedObject.kind"), Selectable::path("involvedObject.namespace"), Selectable::path("involvedObject.name"), Selectable::path("involvedObject.uid"), Selectable::path("involvedObject.apiVersion"), Selectable::path("involvedObject.resourceVersion"), Selectable::path("involvedObject.fieldPath"), Selectable::path("reason"), Selectable::path("reportingComponent"), Selectable::at("source", &["source.component", "reportingComponent"]), Selectable::path("type")])
        .created_by_update()
}
