//! Nobody runs as root.

use super::{Names, Pod, Violation, violation};

/// In a user namespace of its own, root of the pod is nobody on the node.
pub(super) fn has_own_users(pod: &Pod<'_>) -> bool {
    pod.spec["hostUsers"] == false
}

pub fn non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let setters = pod.setters(|context| context["runAsNonRoot"] == false);
    if !setters.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and "));
        return violation(REASON, detail);
    }
    if pod.spec["securityContext"]["runAsNonRoot"] == true {
        return None;
    }
    let silent: Names = pod.containers_where(|container| container["securityContext"]["runAsNonRoot"] != true);
    if silent.0.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", silent.shown("container")))
}

pub fn not_user_0(pod: &Pod<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| context["runAsUser"] == 0);
    if setters.is_empty() {
        return None;
    }
    violation("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}

pub fn non_root_1_35(pod: &Pod<'_>) -> Option<Violation> {
    if has_own_users(pod) { None } else { non_root(pod) }
}

pub fn not_user_0_1_35(pod: &Pod<'_>) -> Option<Violation> {
    if has_own_users(pod) { None } else { not_user_0(pod) }
}
