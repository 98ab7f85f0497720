//! Settings of the kernel: sysctls that reach beyond the pod, and how /proc is masked.

use std::collections::BTreeSet;

use super::{Pod, Violation, quoted, text, violation};

/// Sysctls that are the pod's own, by the minor release that let them through.
const SAFE: [(u32, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

fn sysctls(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let set =
        pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten().map(|sysctl| text(sysctl, "name"));
    let safe = |name: &str| SAFE.iter().any(|(since, safe)| *since <= minor && *safe == name);
    let forbidden: Vec<&str> = set.filter(|name| !safe(name)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

pub fn sysctls_1_0(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, 0)
}

pub fn sysctls_1_27(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, 27)
}

pub fn sysctls_1_29(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, 29)
}

pub fn sysctls_1_32(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, 32)
}

pub fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let kind = |container: &serde_json::Value| match text(&container["securityContext"], "procMount") {
        "" | "Default" => None,
        other => Some(other.to_owned()),
    };
    let kinds: BTreeSet<String> = pod.containers().filter_map(kind).collect();
    let kinds = quoted(&kinds.iter().map(String::as_str).collect());
    let containers = pod.containers_where(|container| kind(container).is_some());
    containers.violate("procMount", &format!("must not set securityContext.procMount to {kinds}"))
}
