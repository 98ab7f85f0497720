//! `controllerrevisions` of apps.

use jiff::Timestamp;
use meta::gvk::split_api_version;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, count, name};
use crate::value::{flag, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "ControllerRevision", "controllerrevisions")
        .columns(vec![Column::name(), Column::text("Controller"), Column::text("Revision"), Column::text("Age")])
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let owner = items(object, "metadata.ownerReferences").iter().find(|o| flag(o, "controller"));
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |o| match split_api_version(text(o, "apiVersion")).0 {
            "" => format!("{}/{}", text(o, "kind").to_lowercase(), text(o, "name")),
            group => format!("{}.{}/{}", text(o, "kind").to_lowercase(), group.to_lowercase(), text(o, "name")),
        },
    );
    vec![name(object), controller.into(), count(object, "revision"), age(object, now)]
}
