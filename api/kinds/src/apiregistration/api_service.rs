//! `apiservices` of apiregistration.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::{Value, json};

use crate::check::{Errors, follows};
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind, NameRule};
use crate::print::{age, condition, name};
use crate::value::{at, flag, int, items, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("apiregistration.k8s.io", "v1", "APIService", "apiservices")
        .category("api-extensions")
        .stored_at("/registry/apiregistration.k8s.io/apiservices")
        .status()
        .columns(vec![Column::name(), Column::text("Service"), Column::text("Available"), Column::text("Age")])
        .names(NameRule::Any)
        .conditional_update()
        .hooks(Hooks {
            row,
            prepare_create,
            validate,
            validate_update: |o, _| validate(o),
            validate_status,
            ..Hooks::NONE
        })
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

/// Highest `groupPriorityMinimum` and `versionPriority`.
const PRIORITIES: [(&str, i64); 2] = [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)];

fn validate(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(service, "spec").unwrap_or(&Value::Null);
    let wanted = format!("{}.{}", text(spec, "version"), text(spec, "group"));
    let (metadata, name) = (Path::root("metadata"), text(service, "metadata.name"));
    if name != wanted {
        let message = "must be `spec.version+\".\"+spec.group`";
        errors.push(FieldError::invalid(metadata.child("name"), name, message));
    }
    // Only this server's own first group has no name.
    if text(spec, "group").is_empty() && text(spec, "version") != "v1" {
        errors.push(FieldError::required(
            path.child("group"),
            "only v1 may have an empty group and it better be legacy kube",
        ));
    }
    if !text(spec, "group").is_empty() {
        follows(&mut errors, path.child("group"), text(spec, "group"), names::dns1123_subdomain);
    }
    follows(&mut errors, path.child("version"), text(spec, "version"), names::dns1035_label);
    for (key, most) in PRIORITIES {
        let priority = int(spec, key).unwrap_or(0);
        if priority <= 0 || priority > most {
            let message = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(path.child(key), priority, message));
        }
    }
    match at(spec, "service") {
        None => local(&mut errors, path, spec),
        Some(service) => remote(&mut errors, path, spec, service),
    }
    errors
}

/// A group that this server serves needs no trust.
fn local(errors: &mut Errors, path: Path, spec: &Value) {
    if !text(spec, "caBundle").is_empty() {
        let message = "local APIServices may not have a caBundle";
        errors.push(FieldError::invalid(path.child("caBundle"), text(spec, "caBundle"), message));
    }
    if flag(spec, "insecureSkipTLSVerify") {
        let message = "local APIServices may not have insecureSkipTLSVerify";
        errors.push(FieldError::invalid(path.child("insecureSkipTLSVerify"), true, message));
    }
}

fn remote(errors: &mut Errors, path: Path, spec: &Value, service: &Value) {
    let place = path.child("service");
    crate::check::present(errors, &place, service, "namespace");
    crate::check::present(errors, &place, service, "name");
    let port = int(service, "port").unwrap_or(0);
    errors.extend(names::port_number(port).into_iter().map(|m| FieldError::invalid(place.child("port"), port, m)));
    if flag(spec, "insecureSkipTLSVerify") && !text(spec, "caBundle").is_empty() {
        let message = "may not be true if caBundle is present";
        errors.push(FieldError::invalid(path.child("insecureSkipTLSVerify"), true, message));
    }
}

fn validate_status(service: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::root("status");
    let list = status.child("conditions");
    for (i, condition) in items(service, "status.conditions").iter().enumerate() {
        let path = list.index(i);
        crate::check::one_of(&mut errors, &path, condition, "status", &["True", "False", "Unknown"]);
    }
    errors
}
