//! `customresourcedefinitions` of apiextensions.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};
use crate::print::{condition_true, joined, name};
use crate::value::{items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
        .short(&["crd", "crds"])
        .category("api-extensions")
        .stored_at("/registry/apiextensions.k8s.io/customresourcedefinitions")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Scope"),
            Column::text("Versions"),
            Column::date("Created At"),
            Column::text("Group").wide(),
            Column::text("Kind").wide(),
            Column::text("ShortNames").wide(),
            Column::boolean("Established").wide(),
        ])
        .names(NameRule::Any)
        .conditional_update()
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let versions = items(object, "spec.versions").iter().map(|v| text(v, "name")).collect::<Vec<_>>().join(",");
    vec![
        name(object),
        text(object, "spec.scope").into(),
        versions.into(),
        text(object, "metadata.creationTimestamp").into(),
        text(object, "spec.group").into(),
        text(object, "spec.names.kind").into(),
        joined(object, "spec.names.shortNames", ",").into(),
        condition_true(object, "Established").into(),
    ]
}
