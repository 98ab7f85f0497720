//! `ipaddresses` of networking.k8s.io.

use jiff::Timestamp;
use meta::gvk::qualified;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};
use crate::print::name;
use crate::value::{at, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("networking.k8s.io", "v1", "IPAddress", "ipaddresses")
        .short(&["ip"])
        .columns(vec![Column::name(), Column::text("ParentRef")])
        .names(NameRule::Any)
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let parent = at(object, "spec.parentRef").map_or_else(
        || "<none>".to_owned(),
        |p| {
            let mut parent = qualified(text(p, "resource"), text(p, "group")).to_lowercase();
            for part in ["namespace", "name"].map(|key| text(p, key)).into_iter().filter(|part| !part.is_empty()) {
                parent = format!("{parent}/{part}");
            }
            parent
        },
    );
    vec![name(object), parent.into()]
}
