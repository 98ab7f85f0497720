//! `storageversionmigrations` of storagemigration.k8s.io.

use jiff::Timestamp;
use meta::gvk::qualified;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::name;
use crate::value::{items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storagemigration.k8s.io", "v1", "StorageVersionMigration", "storageversionmigrations")
        .status()
        .columns(vec![Column::text("Name"), Column::text("Resource"), Column::text("Status")])
        .conditional_update()
        .fixed_status_metadata()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let resource = qualified(text(object, "spec.resource.resource"), text(object, "spec.resource.group"));
    let mut held =
        items(object, "status.conditions").iter().filter(|c| text(c, "status") == "True").map(|c| text(c, "type"));
    let state = held.rfind(|t| ["Running", "Failed", "Succeeded"].contains(t)).unwrap_or("Unknown");
    vec![name(object), resource.into(), state.into()]
}
