//! `nodes`.

use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

use crate::core::pod_spec::defaults::round_up_to_milli;
use crate::hooks::Hooks;
use crate::kind::{Action, Column, Kind, Selectable, Verbs};
use crate::print::{age, condition, name, text_or};
use crate::value::{at, at_mut, flag, items, map, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "Node", "nodes")
        .short(&["no"])
        .stored_at("/registry/minions")
        .connect("proxy", "NodeProxyOptions", Action::Proxy, Verbs::PROXY)
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Status"),
            Column::text("Roles"),
            Column::text("Age"),
            Column::text("Version"),
            Column::text("Internal-IP").wide(),
            Column::text("External-IP").wide(),
            Column::text("OS-Image").wide(),
            Column::text("Kernel-Version").wide(),
            Column::text("Container-Runtime").wide(),
        ])
        .selectable(vec![Selectable::path("spec.unschedulable").or("false")])
        .created_with_status()
        .hooks(Hooks { row, default, ..Hooks::NONE })
}

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match condition(object, "Ready").map(|c| text(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(object, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let kernel = text_or(object, "status.nodeInfo.kernelVersion", "<unknown>");
    let kernel = match (kernel.as_str().unwrap_or(""), text(object, "status.nodeInfo.architecture")) {
        (kernel, "") => kernel.to_owned(),
        (kernel, arch) => format!("{kernel} ({arch})"),
    };
    vec![
        name(object),
        status.into(),
        roles(object).into(),
        age(object, now),
        text(object, "status.nodeInfo.kubeletVersion").into(),
        address(object, "InternalIP"),
        address(object, "ExternalIP"),
        text_or(object, "status.nodeInfo.osImage", "<unknown>"),
        kernel.into(),
        text_or(object, "status.nodeInfo.containerRuntimeVersion", "<unknown>"),
    ]
}

fn roles(object: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in map(object, "metadata.labels").into_iter().flatten() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.insert(role),
            None if key == ROLE_LABEL => roles.insert(value.as_str().unwrap_or("")),
            _ => false,
        };
    }
    roles.remove("");
    let list = roles.into_iter().collect::<Vec<_>>().join(",");
    if list.is_empty() { "<none>".to_owned() } else { list }
}

fn address(object: &Value, kind: &str) -> Value {
    let found = items(object, "status.addresses").iter().find(|a| text(a, "type") == kind);
    found.map_or("<none>", |a| text(a, "address")).into()
}

/// What a node has is allocatable unless it says otherwise.
fn default(node: &mut Value) {
    for list in ["status.capacity", "status.allocatable"] {
        if let Some(Value::Object(list)) = at_mut(node, list) {
            round_up_to_milli(list);
        }
    }
    if let (Some(capacity), None) = (at(node, "status.capacity").cloned(), at(node, "status.allocatable")) {
        set(node, "status.allocatable", capacity);
    }
}
