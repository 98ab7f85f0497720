//! `persistentvolumeclaims`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{access_modes, age, name, storage_class, text_or};
use crate::value::{at, remove, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Status"),
            Column::text("Volume"),
            Column::text("Capacity"),
            Column::text("Access Modes"),
            Column::text("StorageClass"),
            Column::text("VolumeAttributesClass"),
            Column::text("Age"),
            Column::text("VolumeMode").wide(),
        ])
        .hooks(Hooks { row, prepare_create: |o, _| data_sources(o, false), prepare_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let deleting = at(object, "metadata.deletionTimestamp").is_some();
    let bound = !text(object, "spec.volumeName").is_empty();
    let (capacity, modes) = match bound {
        true => (text_or(object, "status.capacity.storage", "0"), access_modes(object, "status.accessModes")),
        false => ("".into(), String::new()),
    };
    vec![
        name(object),
        if deleting { "Terminating" } else { text(object, "status.phase") }.into(),
        text(object, "spec.volumeName").into(),
        capacity,
        modes.into(),
        storage_class(object).into(),
        text_or(object, "spec.volumeAttributesClassName", "<unset>"),
        age(object, now),
        text_or(object, "spec.volumeMode", "<unset>"),
    ]
}

fn prepare_update(claim: &mut Value, old: &Value, _context: &Context) {
    let in_use = at(old, "spec.dataSource").is_some() || at(old, "spec.dataSourceRef").is_some();
    data_sources(claim, in_use);
}

/// Both fields for the source of data say the same. Only claims and snapshots may stand in the old one.
fn data_sources(claim: &mut Value, in_use: bool) {
    const OLD: &str = "spec.dataSource";
    const NEW: &str = "spec.dataSourceRef";
    let known = |source: &Value| match (text(source, "kind"), text(source, "apiGroup")) {
        ("PersistentVolumeClaim", "") => true,
        ("VolumeSnapshot", group) => group == "snapshot.storage.k8s.io",
        _ => false,
    };
    let refused = at(claim, OLD).is_some_and(|source| !known(source));
    if refused && !in_use && at(claim, NEW).is_none() {
        remove(claim, OLD);
    }
    match (at(claim, OLD).cloned(), at(claim, NEW).cloned()) {
        (Some(source), None) => set(claim, NEW, source),
        (None, Some(mut source)) if text(&source, "namespace").is_empty() => {
            remove(&mut source, "namespace");
            set(claim, OLD, source);
        }
        _ => {}
    }
}
