//! `resourceclaimtemplates` of resource.k8s.io.

use meta::{FieldError, Path};
use serde_json::Value;

use super::check_claim;
use crate::check::immutable;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::value::{at, map};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
        .columns(vec![Column::name(), Column::text("Age")])
        .hooks(Hooks {
            default: |o| super::default_requests(o, "spec.spec.devices.requests"),
            validate,
            validate_update,
            ..Hooks::NONE
        })
}

fn validate(template: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let metadata = path.child("metadata");
    let of = |key: &str| map(template, &format!("spec.metadata.{key}"));
    crate::metadata::labels(of("labels"), &metadata.child("labels"), &mut errors);
    crate::metadata::annotations(of("annotations"), &metadata.child("annotations"), &mut errors);
    check_claim::spec(&mut errors, path.child("spec"), at(template, "spec.spec").unwrap_or(&Value::Null));
    errors
}

fn validate_update(template: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    immutable(&mut errors, Path::root("spec"), at(template, "spec"), at(old, "spec"));
    errors
}
