//! Settings of the kernel: sysctls that reach beyond the pod, and how /proc is masked.

use std::collections::BTreeSet;

use super::users::has_own_users;
use super::{Pod, Violation, quoted, text, violation};

/// Sysctls that are the pod's own, by the minor release that let them through.
const SAFE: [(u32, &str); 14] = [
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
    (37, "net.ipv4.tcp_slow_start_after_idle"),
    (37, "net.ipv4.tcp_notsent_lowat"),
];

/// As of a minor release.
pub fn sysctls<const MINOR: u32>(pod: &Pod<'_>) -> Option<Violation> {
    let set =
        pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten().map(|sysctl| text(sysctl, "name"));
    let safe = |name: &str| SAFE.iter().any(|(since, safe)| *since <= MINOR && *safe == name);
    let forbidden: Vec<&str> = set.filter(|name| !safe(name)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
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

/// What a pod with users of its own sees of /proc is its own.
pub fn proc_mount_1_35(pod: &Pod<'_>) -> Option<Violation> {
    if has_own_users(pod) { None } else { proc_mount(pod) }
}
