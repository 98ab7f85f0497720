//! `namespaces`.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::follows;
use crate::hooks::{Context, Hooks};
use crate::kind::{Action, Column, Kind, NameRule, Selectable, Verbs, Writes};
use crate::print::{age, name};
use crate::value::{at, ensure_map, items, remove, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .without(Verbs::DELETE_COLLECTION)
        .writing(
            "finalize",
            Action::Finalize,
            Verbs::UPDATE,
            Writes { prepare: |new, old, _| crate::value::keep(new, old, "status"), validate: validate_finalize },
        )
        .status()
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Age")])
        .selectable(vec![Selectable::path("status.phase")])
        .names(NameRule::Label)
        .hooks(Hooks {
            row,
            default,
            prepare_create,
            prepare_update,
            prepare_delete,
            validate,
            validate_status,
            ..Hooks::NONE
        })
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

/// A deleted namespace takes nothing new while its content goes.
fn prepare_delete(namespace: &mut Value, _context: &Context) {
    set(namespace, "status.phase", "Terminating");
}

/// Finalizers of the spec change through /finalize only.
fn prepare_update(namespace: &mut Value, old: &Value, _context: &Context) {
    match items(old, "spec.finalizers") {
        [] => drop(remove(namespace, "spec.finalizers")),
        finalizers => set(namespace, "spec.finalizers", finalizers.to_vec()),
    }
}

fn validate(namespace: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::root("spec");
    for finalizer in items(namespace, "spec.finalizers").iter().filter_map(Value::as_str) {
        finalizer_name(&mut errors, spec.child("finalizers"), finalizer);
    }
    errors
}

fn finalizer_name(errors: &mut Vec<FieldError>, path: Path, finalizer: &str) {
    follows(errors, path, finalizer, names::qualified_name);
    let standard = [FINALIZER, "orphan", "foregroundDeletion"].contains(&finalizer);
    if !finalizer.contains('/') && !standard {
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, finalizer, message));
    }
}

/// The phase says whether it is being deleted.
fn validate_status(namespace: &Value, _old: &Value) -> Vec<FieldError> {
    let phase = text(namespace, "status.phase");
    let deleting = at(namespace, "metadata.deletionTimestamp").is_some();
    let (wanted, message) = match deleting {
        false => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
        true => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
    };
    if phase == wanted { Vec::new() } else { vec![FieldError::invalid("status.Phase", phase, message)] }
}

/// Finalizers through /finalize.
fn validate_finalize(namespace: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::root("spec");
    let path = spec.child("finalizers");
    for (i, finalizer) in items(namespace, "spec.finalizers").iter().filter_map(Value::as_str).enumerate() {
        finalizer_name(&mut errors, path.index(i), finalizer);
    }
    errors
}
