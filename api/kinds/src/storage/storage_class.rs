//! `storageclasses` of storage.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, name, text_or};
use crate::value::text;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .short(&["sc"])
        .columns(vec![
            Column::name(),
            Column::text("Provisioner"),
            Column::text("ReclaimPolicy"),
            Column::text("VolumeBindingMode"),
            Column::text("AllowVolumeExpansion"),
            Column::text("Age"),
        ])
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "provisioner").into(),
        text_or(object, "reclaimPolicy", "Delete"),
        text_or(object, "volumeBindingMode", "Immediate"),
        boolean(object, "allowVolumeExpansion"),
        age(object, now),
    ]
}
