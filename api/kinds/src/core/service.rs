//! `services`.

use jiff::Timestamp;
use serde_json::Value;

use crate::hooks::{Context, Hooks};
use crate::kind::{Action, Column, Kind, NameRule, Selectable, Verbs};
use crate::print::{age, joined, labels, load_balancer, name};
use crate::value::{at, default_at, int, items, items_mut, remove, same, set, text};

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
        .hooks(Hooks { row, default, prepare_update, warnings, ..Hooks::NONE })
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

/// Seconds that a client sticks to an endpoint.
const AFFINITY_SECONDS: i64 = 10_800;

/// Defaults that depend on the type and on other fields.
fn default(service: &mut Value) {
    if at(service, "spec").is_none() {
        return;
    }
    match text(service, "spec.sessionAffinity") {
        "None" => drop(remove(service, "spec.sessionAffinityConfig")),
        "ClientIP" => default_at(service, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", AFFINITY_SECONDS),
        _ => {}
    }
    for port in items_mut(service, "spec.ports") {
        let target = at(port, "targetPort").is_none_or(|t| t == 0 || t == "");
        if let (true, Some(number)) = (target, int(port, "port")) {
            set(port, "targetPort", number);
        }
    }
    if externally_accessible(service) && text(service, "spec.externalTrafficPolicy").is_empty() {
        set(service, "spec.externalTrafficPolicy", "Cluster");
    }
    if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&text(service, "spec.type")) {
        default_at(service, "spec.internalTrafficPolicy", "Cluster");
    }
    if text(service, "spec.type") == "LoadBalancer" {
        default_at(service, "spec.allocateLoadBalancerNodePorts", true);
        for ingress in items_mut(service, "status.loadBalancer.ingress") {
            if !text(ingress, "ip").is_empty() {
                default_at(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// Reached from outside the cluster: by its type, or by external addresses of a cluster IP.
fn externally_accessible(service: &Value) -> bool {
    let kind = text(service, "spec.type");
    kind == "LoadBalancer"
        || kind == "NodePort"
        || (kind == "ClusterIP" && !items(service, "spec.externalIPs").is_empty())
}

/// What the old type had and the new type has no use for goes away, unless the user changed it too: then validation
/// tells him.
fn prepare_update(service: &mut Value, old: &Value, _context: &Context) {
    let kept = |service: &Value, path: &str| same(at(service, path), at(old, path));
    let (kind, was) = (text(service, "spec.type").to_owned(), text(old, "spec.type"));
    if was != "ExternalName" && kind == "ExternalName" {
        if kept(service, "spec.clusterIP") && kept(service, "spec.clusterIPs") {
            remove(service, "spec.clusterIP");
            remove(service, "spec.clusterIPs");
        }
        for path in ["spec.ipFamilies", "spec.ipFamilyPolicy"] {
            if kept(service, path) {
                remove(service, path);
            }
        }
    }
    let node_ports = |kind: &str| kind == "NodePort" || kind == "LoadBalancer";
    if node_ports(was) && !node_ports(&kind) {
        let known: Vec<i64> = items(old, "spec.ports").iter().filter_map(|p| int(p, "nodePort")).collect();
        let wanted = |p: &Value| int(p, "nodePort").is_none_or(|n| n == 0 || known.contains(&n));
        if items(service, "spec.ports").iter().all(wanted) {
            items_mut(service, "spec.ports").for_each(|p| drop(remove(p, "nodePort")));
        }
    }
    let health = |service: &Value| {
        text(service, "spec.type") == "LoadBalancer" && text(service, "spec.externalTrafficPolicy") == "Local"
    };
    let drops = [
        ("spec.healthCheckNodePort", health(old) && !health(service)),
        ("spec.allocateLoadBalancerNodePorts", was == "LoadBalancer" && kind != "LoadBalancer"),
        ("spec.loadBalancerClass", was == "LoadBalancer" && kind != "LoadBalancer"),
        ("spec.externalTrafficPolicy", externally_accessible(old) && !externally_accessible(service)),
    ];
    for (path, drop) in drops {
        if drop && kept(service, path) {
            remove(service, path);
        }
    }
    if kind != "LoadBalancer" {
        remove(service, "status.loadBalancer");
    }
}

fn warnings(service: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if !items(service, "spec.externalIPs").is_empty() {
        let text = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        warnings.push(text.to_owned());
    }
    warnings
}
