//! `flowschemas` of flowcontrol.apiserver.k8s.io.

use jiff::Timestamp;
use meta::FieldError;
use serde_json::Value;

use super::check_flow;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, condition, count, name, text_or};
use crate::value::text;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("PriorityLevel"),
            Column::text("MatchingPrecedence"),
            Column::text("DistinguisherMethod"),
            Column::text("Age"),
            Column::text("MissingPL"),
        ])
        .generations()
        .fixed_status_metadata()
        .hooks(Hooks {
            row,
            validate: check_flow::schema,
            validate_update: |o, _| check_flow::schema(o),
            validate_status,
            ..Hooks::NONE
        })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "spec.priorityLevelConfiguration.name").into(),
        count(object, "spec.matchingPrecedence"),
        text_or(object, "spec.distinguisherMethod.type", "<none>"),
        age(object, now),
        condition(object, "Dangling").map_or("?", |c| text(c, "status")).into(),
    ]
}

fn validate_status(schema: &Value, _old: &Value) -> Vec<FieldError> {
    super::conditions(schema)
}
