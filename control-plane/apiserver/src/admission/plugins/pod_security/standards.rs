//! The Pod Security Standards: the table of what each forbids, since which release, and how a pod fares. Pure.

use serde_json::Value;

use super::checks::{Pod, Violation, host, kernel, privileges, profiles, users, volumes};
use super::policy::{Level, Standard};

type Check = fn(&Pod<'_>) -> Option<Violation>;

/// One rule of a standard, in its versions.
struct Rule {
    /// Upstream's name. Rules of one level stand in its order.
    id: &'static str,
    level: Level,
    /// The minor release that brought a form of the rule, newest first.
    since: &'static [(u32, Check)],
    /// The rule of the level below that this one makes needless.
    instead_of: &'static str,
}

const fn baseline(id: &'static str, since: &'static [(u32, Check)]) -> Rule {
    Rule { id, level: Level::Baseline, since, instead_of: "" }
}

const fn restricted(id: &'static str, since: &'static [(u32, Check)]) -> Rule {
    Rule { id, level: Level::Restricted, since, instead_of: "" }
}

const fn stricter(id: &'static str, instead_of: &'static str, since: &'static [(u32, Check)]) -> Rule {
    Rule { id, level: Level::Restricted, since, instead_of }
}

const RULES: &[Rule] = &[
    baseline("appArmorProfile", &[(0, profiles::app_armor)]),
    baseline("capabilities_baseline", &[(0, privileges::capabilities_baseline)]),
    baseline("hostNamespaces", &[(0, host::namespaces)]),
    baseline("hostPathVolumes", &[(0, volumes::host_path)]),
    baseline("hostPorts", &[(0, host::ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, host::probes)]),
    baseline("privileged", &[(0, privileges::privileged)]),
    baseline("procMount", &[(35, kernel::proc_mount_1_35), (0, kernel::proc_mount)]),
    baseline("seLinuxOptions", &[(31, profiles::selinux_1_31), (0, profiles::selinux_1_0)]),
    baseline("seccompProfile_baseline", &[(19, profiles::seccomp_baseline), (0, profiles::seccomp_annotations)]),
    baseline(
        "sysctls",
        &[
            (37, kernel::sysctls::<37>),
            (32, kernel::sysctls::<32>),
            (29, kernel::sysctls::<29>),
            (27, kernel::sysctls::<27>),
            (0, kernel::sysctls::<0>),
        ],
    ),
    baseline("windowsHostProcess", &[(0, host::windows_process)]),
    restricted(
        "allowPrivilegeEscalation",
        &[(25, |pod| unless_windows(pod, privileges::escalation)), (8, privileges::escalation)],
    ),
    stricter(
        "capabilities_restricted",
        "capabilities_baseline",
        &[(25, |pod| unless_windows(pod, privileges::capabilities)), (22, privileges::capabilities)],
    ),
    stricter("procMount_restricted", "procMount", &[(35, kernel::proc_mount)]),
    stricter("restrictedVolumes", "hostPathVolumes", &[(0, volumes::restricted)]),
    restricted("runAsNonRoot", &[(35, users::non_root_1_35), (0, users::non_root)]),
    restricted("runAsUser", &[(35, users::not_user_0_1_35), (23, users::not_user_0)]),
    stricter(
        "seccompProfile_restricted",
        "seccompProfile_baseline",
        &[(25, |pod| unless_windows(pod, profiles::seccomp_restricted)), (19, profiles::seccomp_restricted)],
    ),
];

/// What Linux alone has is not asked of Windows pods.
fn unless_windows(pod: &Pod<'_>, check: Check) -> Option<Violation> {
    if pod.spec["os"]["name"] == "windows" { None } else { check(pod) }
}

/// Everything by which a pod breaks a standard.
pub fn evaluate(standard: Standard, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let pod = Pod { metadata, spec };
    let form = |rule: &Rule| rule.since.iter().find(|(since, _)| standard.version.has(*since)).map(|(_, check)| *check);
    let active: Vec<(&Rule, Check)> =
        RULES.iter().filter(|rule| rule.level <= standard.level).filter_map(|rule| Some((rule, form(rule)?))).collect();
    let replaced = |id: &str| active.iter().any(|(rule, _)| rule.instead_of == id);
    active.iter().filter(|(rule, _)| !replaced(rule.id)).filter_map(|(_, check)| check(&pod)).collect()
}

/// `reason (detail), reason (detail)`.
pub fn details(violations: &[Violation]) -> String {
    let shown = violations.iter().map(|violation| format!("{} ({})", violation.reason, violation.detail));
    shown.collect::<Vec<_>>().join(", ")
}

/// `reason, reason`.
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "standards_tests.rs"]
mod tests;
