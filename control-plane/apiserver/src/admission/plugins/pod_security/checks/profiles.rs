//! Profiles of the kernel's security modules: nobody turns off or replaces AppArmor, SELinux and seccomp.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pod, Violation, plural, quoted, text, violation};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The security contexts of the pod and of its containers.
fn contexts<'a>(pod: &Pod<'a>) -> impl Iterator<Item = &'a Value> {
    let containers = pod.containers().map(|container| &container["securityContext"]);
    std::iter::once(&pod.spec["securityContext"]).chain(containers)
}

/// `key="value"` of annotations that a test finds wrong.
fn annotated(pod: &Pod<'_>, prefix: &str, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let wrong = pod.annotations(prefix).filter(|(_, value)| wrong(value));
    let mut shown: Vec<String> = wrong.map(|(key, value)| format!("{key}={}", meta::text::quote(value))).collect();
    shown.sort();
    shown
}

pub fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let kind = |context: &'_ Value| -> Option<String> {
        let kind = text(&context["appArmorProfile"], "type");
        (!matches!(kind, "" | "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
    };
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let mut kinds: BTreeSet<String> = contexts(pod).filter_map(kind).collect();
    let mut setters = pod.setters(|context| kind(context).is_some());
    let annotations = annotated(pod, APP_ARMOR, |value| !allowed(value));
    if !annotations.is_empty() {
        setters.push(plural("annotation", annotations.len()));
        kinds.extend(annotations);
    }
    if setters.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", kinds.len());
    let kinds = quoted(&kinds.iter().map(String::as_str).collect());
    violation(reason, format!("{} must not set AppArmor profile type to {kinds}", setters.join(" and ")))
}

fn selinux(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let options = |context: &'_ Value| context["seLinuxOptions"].clone();
    let kind = |context: &Value| Some(text(&options(context), "type").to_owned()).filter(|t| !allowed.contains(&&**t));
    let given = |context: &Value, field: &str| !text(&options(context), field).is_empty();
    let wrong = |context: &Value| kind(context).is_some() || given(context, "user") || given(context, "role");
    let setters = pod.setters(wrong);
    if setters.is_empty() {
        return None;
    }
    let mut faults = Vec::new();
    let kinds: BTreeSet<String> = contexts(pod).filter_map(kind).collect();
    if !kinds.is_empty() {
        let shown = quoted(&kinds.iter().map(String::as_str).collect());
        faults.push(format!("{} {shown}", plural("type", kinds.len())));
    }
    for field in ["user", "role"] {
        if contexts(pod).any(|context| given(context, field)) {
            faults.push(format!("{field} may not be set"));
        }
    }
    let who = setters.join(" and ");
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", faults.join("; ")))
}

pub fn selinux_1_0(pod: &Pod<'_>) -> Option<Violation> {
    selinux(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub fn selinux_1_31(pod: &Pod<'_>) -> Option<Violation> {
    selinux(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

/// Before profiles were fields they were annotations.
pub fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let allowed =
        |value: &str| matches!(value, "" | "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let mut wrong = annotated(pod, SECCOMP_POD, |value| !allowed(value));
    wrong.extend(annotated(pod, SECCOMP_CONTAINER, |value| !allowed(value)));
    if wrong.is_empty() {
        return None;
    }
    let detail = format!("forbidden {} {}", plural("annotation", wrong.len()), wrong.join(", "));
    violation("seccompProfile", detail)
}

fn seccomp_kind(context: &Value) -> &str {
    text(&context["seccompProfile"], "type")
}

pub fn seccomp_baseline(pod: &Pod<'_>) -> Option<Violation> {
    let wrong = |context: &Value| !matches!(seccomp_kind(context), "" | "RuntimeDefault" | "Localhost");
    let setters = pod.setters(wrong);
    if setters.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = contexts(pod).filter(|context| wrong(context)).map(seccomp_kind).collect();
    let who = setters.join(" and ");
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&kinds));
    violation("seccompProfile", detail)
}

pub fn seccomp_restricted(pod: &Pod<'_>) -> Option<Violation> {
    if let Some(explicit) = seccomp_baseline(pod) {
        return Some(explicit);
    }
    if !seccomp_kind(&pod.spec["securityContext"]).is_empty() {
        return None;
    }
    let silent = pod.containers_where(|container| seccomp_kind(&container["securityContext"]).is_empty());
    if silent.0.is_empty() {
        return None;
    }
    let who = silent.shown("container");
    let must = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    violation("seccompProfile", format!("pod or {who} {must}"))
}
