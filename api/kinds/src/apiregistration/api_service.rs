//! `apiservices` of apiregistration.k8s.io.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind, NameRule};
use crate::print::{age, condition, name};
use crate::value::{at, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("apiregistration.k8s.io", "v1", "APIService", "apiservices")
        .category("api-extensions")
        .stored_at("/registry/apiregistration.k8s.io/apiservices")
        .status()
        .columns(vec![Column::name(), Column::text("Service"), Column::text("Available"), Column::text("Age")])
        .names(NameRule::Any)
        .conditional_update()
        .hooks(Hooks { row, prepare_create, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = match at(object, "spec.service") {
        Some(service) => format!("{}/{}", text(service, "namespace"), text(service, "name")),
        None => "Local".to_owned(),
    };
    let available = match condition(object, "Available") {
        Some(c) if text(c, "status") == "True" || text(c, "reason").is_empty() => text(c, "status").to_owned(),
        Some(c) => format!("{} ({})", text(c, "status"), text(c, "reason")),
        None => "Unknown".to_owned(),
    };
    vec![name(object), service.into(), available.into(), age(object, now)]
}

/// A group served by this server is available at once.
fn prepare_create(service: &mut Value, context: &Context) {
    if at(service, "spec.service").is_none() {
        let condition = json!({"type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": meta::time::format(context.now)});
        set(service, "status.conditions", json!([condition]));
    }
}
