//! `events`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{name, since, time};
use crate::value::{at, int, text};

/// Events expire one hour after their last write.
pub const EVENT_TTL_SECONDS: u32 = 3600;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Event", "events")
        .short(&["ev"])
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
            Selectable::path("involvedObject.kind"),
            Selectable::path("involvedObject.namespace"),
            Selectable::path("involvedObject.name"),
            Selectable::path("involvedObject.uid"),
            Selectable::path("involvedObject.apiVersion"),
            Selectable::path("involvedObject.resourceVersion"),
            Selectable::path("involvedObject.fieldPath"),
            Selectable::path("reason"),
            Selectable::path("reportingComponent"),
            Selectable::at("source", &["source.component", "reportingComponent"]),
            Selectable::path("type"),
        ])
        .created_by_update()
        .hooks(Hooks { row, ..Hooks::NONE })
}

pub(crate) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let first = if time(object, "firstTimestamp").is_some() { "firstTimestamp" } else { "eventTime" };
    let first = since(object, first, now);
    let (mut last, mut count) = (first.clone(), int(object, "count").unwrap_or(0));
    if time(object, "lastTimestamp").is_some() {
        last = since(object, "lastTimestamp", now);
    }
    if at(object, "series").is_some() {
        last = since(object, "series.lastObservedTime", now);
        count = int(object, "series.count").unwrap_or(0);
    } else if count == 0 {
        count = 1;
    }
    let mut target = text(object, "involvedObject.kind").to_lowercase();
    if !text(object, "involvedObject.name").is_empty() {
        target = format!("{target}/{}", text(object, "involvedObject.name"));
    }
    vec![
        last.into(),
        text(object, "type").into(),
        text(object, "reason").into(),
        target.into(),
        text(object, "involvedObject.fieldPath").into(),
        source(object).into(),
        text(object, "message").trim().into(),
        first.into(),
        count.into(),
        name(object),
    ]
}

/// `component, host` of whoever reported the event, in the old fields or else the new ones.
fn source(object: &Value) -> String {
    let either = |old, new| match text(object, old) {
        "" => text(object, new),
        found => found,
    };
    let component = either("source.component", "reportingComponent");
    match either("source.host", "reportingInstance") {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}
