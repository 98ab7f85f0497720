//! `podtemplates`.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::core::pod_spec::defaults::spec_at;
use crate::core::pod_spec::{template, warnings};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{containers, labels, name};
use crate::value::at;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "PodTemplate", "podtemplates")
        .columns(vec![Column::name(), Column::text("Containers"), Column::text("Images"), Column::text("Pod Labels")])
        .generations()
        .hooks(Hooks {
            row,
            default: |o| spec_at(o, "template.spec"),
            validate: |o| check(o),
            validate_update: |o, _| check(o),
            warnings: |o, old| warnings::of_changed(o, old, "template"),
            ..Hooks::NONE
        })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "template.spec");
    vec![name(object), names, images, labels(object, "template.metadata.labels")]
}

fn check(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    template(&mut errors, Path::root("template"), at(object, "template"));
    errors
}
