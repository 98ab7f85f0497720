//! `persistentvolumeclaims`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{access_modes, age, name, storage_class, text_or};
use crate::value::{at, text};

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
        .hooks(Hooks { row, ..Hooks::NONE })
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
