//! `namespaces`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::kind::{Action, Column, Kind, NameRule, Selectable, Verbs, Writes};
use crate::print::{age, name};
use crate::value::{ensure_map, items, remove, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .without(Verbs::DELETE_COLLECTION)
        .writing(
            "finalize",
            Action::Finalize,
            Verbs::UPDATE,
            Writes { prepare: |new, old, _| crate::value::keep(new, old, "status"), validate: |_, _| Vec::new() },
        )
        .status()
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Age")])
        .selectable(vec![Selectable::path("status.phase")])
        .names(NameRule::Label)
        .hooks(Hooks { row, default, prepare_create, prepare_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "status.phase").into(), age(object, now)]
}

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Every namespace carries its name as a label.
fn default(namespace: &mut Value) {
    let name = text(namespace, "metadata.name").to_owned();
    if !name.is_empty() {
        ensure_map(namespace, "metadata.labels").insert(NAME_LABEL.to_owned(), name.into());
    }
}

/// A new namespace is active, and waits for its content to go before it goes. The label again: the name may be generated.
fn prepare_create(namespace: &mut Value, _context: &Context) {
    set(namespace, "status.phase", "Active");
    let mut finalizers = items(namespace, "spec.finalizers").to_vec();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    set(namespace, "spec.finalizers", finalizers);
    default(namespace);
}

/// Finalizers of the spec change through /finalize only.
fn prepare_update(namespace: &mut Value, old: &Value, _context: &Context) {
    match items(old, "spec.finalizers") {
        [] => drop(remove(namespace, "spec.finalizers")),
        finalizers => set(namespace, "spec.finalizers", finalizers.to_vec()),
    }
}
