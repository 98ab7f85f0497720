//! `replicasets` of apps.

use meta::{FieldError, Path};
use serde_json::Value;

use crate::apps::workload::replicated;
use crate::check::immutable;
use crate::core::pod_spec::defaults::spec_at;
use crate::core::replicas;
use crate::hooks::Hooks;
use crate::kind::Kind;
use crate::print::selector;
use crate::value::at;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    let kind = Kind::namespaced_row("apps", "v1", "ReplicaSet", "replicasets").short(&["rs"]);
    replicas::kind(
        kind,
        Hooks {
            row: |o, now| replicas::row(o, now, selector(o, "spec.selector")),
            default: |o| spec_at(o, "spec.template.spec"),
            validate: check,
            validate_update: check_update,
            ..Hooks::NONE
        },
    )
}

fn check(set: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(set, "spec").unwrap_or(&Value::Null);
    replicas::counts(&mut errors, &path, spec);
    replicated(&mut errors, path, spec);
    errors
}

fn check_update(set: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(set);
    let spec = Path::root("spec");
    immutable(&mut errors, spec.child("selector"), at(set, "spec.selector"), at(old, "spec.selector"));
    errors
}
