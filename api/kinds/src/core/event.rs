//! `events`.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, Selectable};
use crate::print::{name, since, time};
use crate::value::{at, int, text};

/// Events expire one hour after their last write.
pub const EVENT_TTL_SECONDS: u32 = 3600;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    let mut fields = selectable("involvedObject", "reportingComponent");
    fields.push(Selectable::at("source", &["source.component", "reportingComponent"]));
    shared(Kind::namespaced_row("", "v1", "Event", "events")).selectable(fields).hooks(Hooks {
        row,
        validate,
        validate_update: |o, _| validate(o),
        ..Hooks::NONE
    })
}

/// What both views of events have in their rows.
pub(crate) fn shared(kind: Kind) -> Kind {
    kind.short(&["ev"])
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
        .created_by_update()
}

/// Field selectors: what an event is about (at `target`), who reports it (at `reporter`), and why.
pub(crate) fn selectable(target: &'static str, reporter: &'static str) -> Vec<Selectable> {
    let about = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    let about = about.iter().map(|key| Selectable::path(format!("{target}.{key}")));
    about.chain(["reason", reporter, "type"].map(Selectable::path)).collect()
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

/// Longest name of an instance, an action and a reason, and longest message of an event that has an `eventTime`.
const WORD_LIMIT: usize = 128;
const MESSAGE_LIMIT: usize = 1024;

/// Events of the old sort must only stand in the namespace of what they are about; those with a time say all.
fn validate(event: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let dated = at(event, "eventTime").is_some();
    let (namespace, target) = (text(event, "metadata.namespace"), text(event, "involvedObject.namespace"));
    let fits = match (target, dated) {
        ("", false) => matches!(namespace, "" | "default"),
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (target, false) => namespace == target,
        (_, true) => true,
    };
    if !fits {
        errors.push(FieldError::invalid("involvedObject.namespace", target, "does not match event.namespace"));
    }
    if dated {
        reported(&mut errors, event);
    }
    errors
}

fn reported(errors: &mut Errors, event: &Value) {
    let reporter = text(event, "reportingComponent");
    if reporter.is_empty() {
        errors.push(FieldError::required("reportingComponent", ""));
    }
    follows(errors, Path::root("reportingComponent"), reporter, names::qualified_name);
    for key in ["reportingInstance", "action", "reason"] {
        match text(event, key) {
            "" => errors.push(FieldError::required(key, "")),
            word if word.len() > WORD_LIMIT => errors.push(FieldError::too_long(key, WORD_LIMIT as i64)),
            _ => {}
        }
    }
    if text(event, "message").len() > MESSAGE_LIMIT {
        errors.push(FieldError::too_long("message", MESSAGE_LIMIT as i64));
    }
}
