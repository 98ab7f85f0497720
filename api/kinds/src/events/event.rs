//! `events` of events.k8s.io.

use meta::Gvk;

use crate::core::event::EVENT_TTL_SECONDS;
use crate::kind::{Column, Kind, Selectable};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("events.k8s.io", "v1", "Event", "events")
        .short(&["ev"])
        .stored_as(Gvk::new("", "v1", "Event"))
        .expires(EVENT_TTL_SECONDS)
        .columns(vec![
            Column::text("Last Seen"),
            Column::text("Type"),
            Column::text("Reason"),
            Column::text("Object"),
            Column::text("Subobject").wide(),
            Column::text("Source").wide(),
            Column::text("Message"),
            Column::text("First Seen").wide(),
            Column::text("Count").wide(),
            Column::name().wide(),
        ])
        .selectable(vec![
            Selectable::path("regarding.kind"),
            Selectable::path("regarding.namespace"),
            Selectable::path("regarding.name"),
            Selectable::path("regarding.uid"),
            Selectable::path("regarding.apiVersion"),
            Selectable::path("regarding.resourceVersion"),
            Selectable::path("regarding.fieldPath"),
            Selectable::path("reason"),
            Selectable::path("reportingController"),
            Selectable::path("type"),
        ])
        .created_by_update()
}
