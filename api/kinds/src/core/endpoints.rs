//! `endpoints`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name};
use crate::value::{int, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Endpoints", "endpoints")
        .short(&["ep"])
        .stored_at("/registry/services/endpoints")
        .columns(vec![Column::name(), Column::text("Endpoints"), Column::text("Age")])
        .created_by_update()
        .hooks(Hooks { row, ..Hooks::NONE })
}

/// Addresses shown before the rest is counted.
const SHOWN: usize = 3;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), addresses(object).into(), age(object, now)]
}

/// `10.0.0.1:80,10.0.0.2:80 + 3 more...`; addresses of a subset without ports stand alone.
fn addresses(object: &Value) -> String {
    let subsets = items(object, "subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ports = items(subset, "ports");
        let ips = || items(subset, "addresses").iter().map(|a| text(a, "ip"));
        if ports.is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in ports {
            let port = int(port, "port").unwrap_or(0);
            all.extend(
                ips().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    if all.len() > SHOWN { format!("{shown} + {} more...", all.len() - SHOWN) } else { shown }
}
