//! `volumeattachments` of storage.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, name};
use crate::value::text;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Attacher").named(),
            Column::text("PV"),
            Column::text("Node"),
            Column::boolean("Attached"),
            Column::text("Age"),
        ])
        .conditional_update()
        .fixed_status_metadata()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "spec.attacher").into(),
        text(object, "spec.source.persistentVolumeName").into(),
        text(object, "spec.nodeName").into(),
        boolean(object, "status.attached"),
        age(object, now),
    ]
}
