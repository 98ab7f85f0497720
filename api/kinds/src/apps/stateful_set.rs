//! `statefulsets` of apps.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::pod_spec::defaults::spec_at;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, containers, name};
use crate::value::{ensure_map, int, items_mut, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .category("all")
        .scale()
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Ready"),
            Column::text("Age"),
            Column::text("Containers").wide(),
            Column::text("Images").wide(),
        ])
        .generations()
        .hooks(Hooks { row, default, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template.spec");
    let number = |path| int(object, path).unwrap_or(0);
    let ready = format!("{}/{}", number("status.readyReplicas"), number("spec.replicas"));
    vec![name(object), ready.into(), age(object, now), names, images]
}

fn default(sts: &mut Value) {
    if text(sts, "spec.updateStrategy.type").is_empty() {
        set(sts, "spec.updateStrategy.type", "RollingUpdate");
        ensure_map(sts, "spec.updateStrategy.rollingUpdate");
    }
    for claim in items_mut(sts, "spec.volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
    }
    spec_at(sts, "spec.template.spec");
}
