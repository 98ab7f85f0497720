//! What belongs to the node stays the node's: namespaces, ports, processes, and network reached from the node itself.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pod, Violation, plural, quoted, violation};

pub fn namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

pub fn ports(pod: &Pod<'_>) -> Option<Violation> {
    let of = |container: &Value| -> Vec<String> {
        let ports = container["ports"].as_array().into_iter().flatten();
        let taken = ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0);
        taken.map(|port| port.to_string()).collect()
    };
    let containers = pod.containers_where(|container| !of(container).is_empty());
    let ports: BTreeSet<String> = pod.containers().flat_map(of).collect();
    if ports.is_empty() {
        return None;
    }
    let uses = if containers.0.len() == 1 { "uses" } else { "use" };
    let numbers = ports.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let detail = format!("{} {uses} {} {numbers}", containers.shown("container"), plural("hostPort", ports.len()));
    violation("hostPort", detail)
}

/// Probes and hooks are carried out by the kubelet, in the network of the node.
pub fn probes(pod: &Pod<'_>) -> Option<Violation> {
    let containers = pod.containers_where(|container| !hosts(container).is_empty());
    let hosts: BTreeSet<&str> = pod.containers().flat_map(hosts).collect();
    if hosts.is_empty() {
        return None;
    }
    let uses = if containers.0.len() == 1 { "uses" } else { "use" };
    let what = plural("host", hosts.len());
    let detail = format!("{} {uses} probe or lifecycle {what} {}", containers.shown("container"), quoted(&hosts));
    violation("probe or lifecycle host", detail)
}

fn hosts(container: &Value) -> Vec<&str> {
    let handlers = [
        &container["livenessProbe"],
        &container["readinessProbe"],
        &container["startupProbe"],
        &container["lifecycle"]["postStart"],
        &container["lifecycle"]["preStop"],
    ];
    let actions =
        handlers.into_iter().flat_map(|handler| ["httpGet", "tcpSocket"].map(|action| &handler[action]["host"]));
    actions.filter_map(Value::as_str).filter(|host| !host.is_empty()).collect()
}

pub fn windows_process(pod: &Pod<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| context["windowsOptions"]["hostProcess"] == true);
    if setters.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and "));
    violation("hostProcess", detail)
}
