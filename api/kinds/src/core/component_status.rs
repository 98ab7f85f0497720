//! `componentstatuses`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Action, Column, Kind};
use crate::print::name;
use crate::value::{items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "ComponentStatus", "componentstatuses")
        .short(&["cs"])
        .shows(Action::ComponentHealth)
        .deprecated("v1 ComponentStatus is deprecated in v1.19+")
        .columns(vec![Column::name(), Column::text("Status"), Column::text("Message"), Column::text("Error")])
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let healthy = items(object, "conditions").iter().find(|c| text(c, "type") == "Healthy");
    let (status, message, error) = match healthy {
        None => ("Unknown", "", ""),
        Some(c) => {
            let status = if text(c, "status") == "True" { "Healthy" } else { "Unhealthy" };
            (status, text(c, "message"), text(c, "error"))
        }
    };
    vec![name(object), status.into(), message.into(), error.into()]
}
