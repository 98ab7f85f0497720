//! `persistentvolumes`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{access_modes, age, name, storage_class, text_or};
use crate::value::{at, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "PersistentVolume", "persistentvolumes")
        .short(&["pv"])
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Capacity"),
            Column::text("Access Modes"),
            Column::text("Reclaim Policy"),
            Column::text("Status"),
            Column::text("Claim"),
            Column::text("StorageClass"),
            Column::text("VolumeAttributesClass"),
            Column::text("Reason"),
            Column::text("Age"),
            Column::text("VolumeMode").wide(),
        ])
        .hooks(Hooks { row, prepare_create, prepare_status, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = at(object, "spec.claimRef").map(|c| format!("{}/{}", text(c, "namespace"), text(c, "name")));
    let deleting = at(object, "metadata.deletionTimestamp").is_some();
    vec![
        name(object),
        text_or(object, "spec.capacity.storage", "0"),
        access_modes(object, "spec.accessModes").into(),
        text(object, "spec.persistentVolumeReclaimPolicy").into(),
        if deleting { "Terminating" } else { text(object, "status.phase") }.into(),
        claim.unwrap_or_default().into(),
        storage_class(object).into(),
        text_or(object, "spec.volumeAttributesClassName", "<unset>"),
        text(object, "status.reason").into(),
        age(object, now),
        text_or(object, "spec.volumeMode", "<unset>"),
    ]
}

/// The phase counts from now.
fn prepare_create(volume: &mut Value, context: &Context) {
    set(volume, "status.phase", "Pending");
    set(volume, "status.lastPhaseTransitionTime", meta::time::format(context.now));
}

/// A new phase counts from now; the same phase keeps its time.
fn prepare_status(volume: &mut Value, old: &Value, context: &Context) {
    const TIME: &str = "status.lastPhaseTransitionTime";
    let same_phase = text(volume, "status.phase") == text(old, "status.phase");
    match (same_phase, text(volume, TIME)) {
        (true, "") if !text(old, TIME).is_empty() => set(volume, TIME, text(old, TIME)),
        (false, time) if time.is_empty() || time == text(old, TIME) => {
            set(volume, TIME, meta::time::format(context.now));
        }
        _ => {}
    }
}
