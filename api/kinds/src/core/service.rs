//! `services`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::Hooks;
use crate::kind::{Action, Column, Kind, NameRule, Selectable, Verbs};
use crate::print::{age, joined, labels, load_balancer, name};
use crate::value::{int, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("", "v1", "Service", "services")
        .short(&["svc"])
        .category("all")
        .stored_at("/registry/services/specs")
        .connect("proxy", "ServiceProxyOptions", Action::Proxy, Verbs::PROXY)
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Type"),
            Column::text("Cluster-IP"),
            Column::text("External-IP"),
            Column::text("Port(s)"),
            Column::text("Age"),
            Column::text("Selector").wide(),
        ])
        .selectable(vec![Selectable::path("spec.clusterIP"), Selectable::path("spec.type")])
        .names(NameRule::Label1035)
        .created_by_update()
        .hooks(Hooks { row, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = items(object, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
    vec![
        name(object),
        text(object, "spec.type").into(),
        cluster_ip.into(),
        external_ip(object).into(),
        ports(object).into(),
        age(object, now),
        labels(object, "spec.selector"),
    ]
}

fn external_ip(object: &Value) -> String {
    let external = joined(object, "spec.externalIPs", ",");
    match text(object, "spec.type") {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external,
        "LoadBalancer" => {
            let balancer = load_balancer(object, "status.loadBalancer.ingress");
            match (balancer.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".to_owned(),
                (false, true) => balancer,
                (true, false) => external,
                (false, false) => format!("{balancer},{external}"),
            }
        }
        "ExternalName" => text(object, "spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn ports(object: &Value) -> String {
    let one = |p: &Value| {
        let (port, protocol) = (int(p, "port").unwrap_or(0), text(p, "protocol"));
        match int(p, "nodePort").unwrap_or(0) {
            0 => format!("{port}/{protocol}"),
            node_port => format!("{port}:{node_port}/{protocol}"),
        }
    };
    match items(object, "spec.ports") {
        [] => "<none>".to_owned(),
        ports => ports.iter().map(one).collect::<Vec<_>>().join(","),
    }
}
