//! `ingressclasses` of networking.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{domain_prefixed_path, follows, immutable};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::age;
use crate::value::{at, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("networking.k8s.io", "v1", "IngressClass", "ingressclasses")
        .columns(vec![Column::name(), Column::text("Controller"), Column::text("Parameters"), Column::text("Age")])
        .generations()
        .hooks(Hooks { row, validate: check, validate_update: check_update, ..Hooks::NONE })
}

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let is_default = at(object, "metadata.annotations").and_then(|a| a.get(DEFAULT_CLASS)) == Some(&"true".into());
    let name = format!("{}{}", text(object, "metadata.name"), if is_default { " (default)" } else { "" });
    let parameters = at(object, "spec.parameters").map_or_else(
        || "<none>".to_owned(),
        |p| match at(p, "apiGroup").and_then(Value::as_str) {
            Some(group) => format!("{}.{group}/{}", text(p, "kind"), text(p, "name")),
            None => format!("{}/{}", text(p, "kind"), text(p, "name")),
        },
    );
    vec![name.into(), text(object, "spec.controller").into(), parameters.into(), age(object, now)]
}

const MAX_CONTROLLER: i64 = 250;

fn check(class: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let controller = text(class, "spec.controller");
    if controller.len() as i64 > MAX_CONTROLLER {
        errors.push(FieldError::too_long(path.child("controller"), MAX_CONTROLLER));
    }
    domain_prefixed_path(&mut errors, path.child("controller"), controller);
    let Some(parameters) = at(class, "spec.parameters") else { return errors };
    let path = path.child("parameters");
    super::ingress::reference(&mut errors, path, parameters);
    let namespace = at(parameters, "namespace").and_then(Value::as_str);
    let namespace_path = path.child("namespace");
    match (at(parameters, "scope").and_then(Value::as_str), namespace) {
        (None, _) => errors.push(FieldError::required(path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(namespace_path, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(name)) => follows(&mut errors, namespace_path, name, names::dns1123_label),
        (Some("Cluster"), None) => {}
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(namespace_path, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some(other), _) => {
            errors.push(FieldError::not_supported(path.child("scope"), other, ["Cluster", "Namespace"]));
        }
    }
    errors
}

fn check_update(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(class);
    let path = Path::root("spec");
    immutable(&mut errors, path.child("controller"), at(class, "spec.controller"), at(old, "spec.controller"));
    errors
}
