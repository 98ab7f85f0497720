//! `customresourcedefinitions` of apiextensions.k8s.io.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind, NameRule};
use crate::print::{condition_true, joined, name};
use crate::value::{default_at, flag, items, set, text};

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
        .hooks(Hooks {
            row,
            default,
            prepare_create: |o, _| stored_versions(o),
            prepare_update: |o, _, _| stored_versions(o),
            prepare_delete,
            ..Hooks::NONE
        })
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

/// Names that follow from others.
fn default(crd: &mut Value) {
    let kind = text(crd, "spec.names.kind").to_owned();
    if !kind.is_empty() {
        for (path, value) in
            [("spec.names.singular", kind.to_lowercase()), ("spec.names.listKind", format!("{kind}List"))]
        {
            if text(crd, path).is_empty() {
                set(crd, path, value);
            }
        }
    }
    for webhook in ["spec.conversion.webhook.clientConfig.service"] {
        if crate::value::at(crd, webhook).is_some() {
            default_at(crd, &format!("{webhook}.port"), 443);
        }
    }
    if items(crd, "status.storedVersions").is_empty() {
        stored_versions(crd);
    }
}

/// Holds a definition until its objects are gone; taken off by the server.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Objects go before their definition does.
fn prepare_delete(crd: &mut Value, context: &Context) {
    let mut finalizers = items(crd, "metadata.finalizers").to_vec();
    if !finalizers.iter().any(|f| f == CLEANUP_FINALIZER) {
        finalizers.push(CLEANUP_FINALIZER.into());
        set(crd, "metadata.finalizers", finalizers);
    }
    let condition = json!({
        "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        "lastTransitionTime": meta::time::format(context.now),
    });
    let mut conditions = items(crd, "status.conditions").to_vec();
    conditions.retain(|c| text(c, "type") != "Terminating");
    conditions.push(condition);
    set(crd, "status.conditions", conditions);
}

/// The storage version is among the stored ones from the moment it is named.
fn stored_versions(crd: &mut Value) {
    let storage = items(crd, "spec.versions").iter().find(|v| flag(v, "storage")).map(|v| text(v, "name").to_owned());
    let mut stored = items(crd, "status.storedVersions").to_vec();
    if let Some(name) = storage.filter(|name| !stored.iter().any(|s| s == name.as_str())) {
        stored.push(name.into());
        set(crd, "status.storedVersions", stored);
    }
}
