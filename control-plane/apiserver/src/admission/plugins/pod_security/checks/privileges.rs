//! Privileges of processes: privileged containers, capabilities, and gaining more by running a program.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Names, Pod, Violation, quoted, violation};

/// What container runtimes give without being asked.
const DEFAULT: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let containers = pod.containers_where(|container| container["securityContext"]["privileged"] == true);
    containers.violate("privileged", "must not set securityContext.privileged=true")
}

pub fn escalation(pod: &Pod<'_>) -> Option<Violation> {
    let containers =
        pod.containers_where(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    let must = "must set securityContext.allowPrivilegeEscalation=false";
    containers.violate("allowPrivilegeEscalation != false", must)
}

fn capabilities_of<'a>(container: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    let list = container["securityContext"]["capabilities"][list].as_array();
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// Containers that add capabilities beyond the allowed ones, and the words for it.
fn added(pod: &Pod<'_>, allowed: &[&str]) -> (Names, String) {
    let beyond = |name: &&str| !allowed.contains(name);
    let names: BTreeSet<&str> = pod.containers().flat_map(|c| capabilities_of(c, "add")).filter(beyond).collect();
    let containers = pod.containers_where(|container| capabilities_of(container, "add").any(|name| beyond(&name)));
    (containers, format!("must not include {} in securityContext.capabilities.add", quoted(&names)))
}

pub fn capabilities_baseline(pod: &Pod<'_>) -> Option<Violation> {
    let (containers, must) = added(pod, &DEFAULT);
    containers.violate("non-default capabilities", &must)
}

pub fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let keeping = pod.containers_where(|container| !capabilities_of(container, "drop").any(|name| name == "ALL"));
    let (adding, must_not) = added(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.0.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", keeping.shown("container")));
    }
    if !adding.0.is_empty() {
        details.push(format!("{} {must_not}", adding.shown("container")));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}
