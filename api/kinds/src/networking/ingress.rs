//! `ingresses` of networking.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, and_more, load_balancer, name, text_or};
use crate::value::{items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("networking.k8s.io", "v1", "Ingress", "ingresses")
        .short(&["ing"])
        .stored_at("/registry/ingress")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Class"),
            Column::text("Hosts"),
            Column::text("Address"),
            Column::text("Ports"),
            Column::text("Age"),
        ])
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

/// Hosts shown before the rest is counted.
const SHOWN: usize = 3;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let tls = !items(object, "spec.tls").is_empty();
    vec![
        name(object),
        text_or(object, "spec.ingressClassName", "<none>"),
        hosts(items(object, "spec.rules")),
        load_balancer(object, "status.loadBalancer.ingress").into(),
        if tls { "80, 443" } else { "80" }.into(),
        age(object, now),
    ]
}

/// Rules without a host are not listed; what comes after three listed hosts is counted by rules.
fn hosts(rules: &[Value]) -> Value {
    let mut listed = Vec::new();
    for rule in rules {
        if listed.len() == SHOWN {
            return and_more(&listed, rules.len(), "*");
        }
        if !text(rule, "host").is_empty() {
            listed.push(text(rule, "host").to_owned());
        }
    }
    and_more(&listed, listed.len(), "*")
}
