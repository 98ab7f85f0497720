//! `ingressclasses` of networking.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::age;
use crate::value::{at, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("networking.k8s.io", "v1", "IngressClass", "ingressclasses")
        .columns(vec![Column::name(), Column::text("Controller"), Column::text("Parameters"), Column::text("Age")])
        .generations()
        .hooks(Hooks { row, ..Hooks::NONE })
}

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let is_default = at(object, "metadata.annotations").and_then(|a| a.get(DEFAULT_CLASS)) == Some(&"true".into());
    let name = format!("{}{}", text(object, "metadata.name"), if is_default { " (default)" } else { "" });
    let parameters = at(object, "spec.parameters").map_or_else(
        || "<none>".to_owned(),
        |p| match at(p, "apiGroup").and_then(Value::as_str) {
            Some(group) => format!("{}.{group}/{}", text(p, "kind"), text(p, "name")),
            None => format!("{}/{}", text(p, "kind"), text(p, "name")),
        },
    );
    vec![name.into(), text(object, "spec.controller").into(), parameters.into(), age(object, now)]
}
