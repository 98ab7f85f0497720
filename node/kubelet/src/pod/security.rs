//! Security contexts of pods and containers as the CRI takes them: the container's word before the pod's. Pure.

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod, SELinuxOptions, SeccompProfile};
use wire::cri;

use crate::pod::pods::{self, ContainerType};

/// Hidden from unprivileged containers, and shown to them read-only: what every runtime hides by default.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Sysctls that are namespaced and can't hurt neighbours.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The first sysctl that the node doesn't allow, with upstream's message.
pub fn forbidden_sysctl(pod: &Pod, unsafe_allowed: &[String]) -> Option<String> {
    let wanted = pods::spec(pod).security_context.as_ref()?.sysctls.as_ref()?;
    let allowed = |name: &str| {
        let listed = |p: &String| p.strip_suffix('*').map_or(p == name, |prefix| name.starts_with(prefix));
        SAFE_SYSCTLS.contains(&name) || unsafe_allowed.iter().any(listed)
    };
    let bad = wanted.iter().find(|s| !allowed(&s.name.replace('/', ".")))?;
    Some(format!("forbidden sysctl: \"{}\" not allowlisted", bad.name))
}

fn int(value: i64) -> Option<cri::Int64Value> {
    Some(cri::Int64Value { value })
}

fn selinux(options: Option<&SELinuxOptions>) -> Option<cri::SeLinuxOption> {
    options.map(|o| cri::SeLinuxOption {
        user: o.user.clone().unwrap_or_default(),
        role: o.role.clone().unwrap_or_default(),
        r#type: o.type_.clone().unwrap_or_default(),
        level: o.level.clone().unwrap_or_default(),
    })
}

fn profile(kind: &str, localhost: Option<&str>, root: &str) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost_ref) = match kind {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        "Localhost" => (ProfileType::Localhost, format!("{root}{}", localhost.unwrap_or(""))),
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn seccomp(wanted: Option<&SeccompProfile>, default: bool, root: &str) -> Option<cri::SecurityProfile> {
    let fallback = if default { "RuntimeDefault" } else { "Unconfined" };
    let kind = wanted.map_or(fallback, |p| p.type_.as_str());
    Some(profile(kind, wanted.and_then(|p| p.localhost_profile.as_deref()), root))
}

/// What the node decides about security.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub seccomp_default: bool,
    /// `<root>/seccomp/`, with the slash.
    pub seccomp_root: String,
}

fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    use cri::NamespaceMode as Mode;
    let spec = pods::spec(pod);
    let on = |b: Option<bool>| b.unwrap_or(false);
    let pid = match (on(spec.host_pid), on(spec.share_process_namespace)) {
        (true, _) => Mode::Node,
        (_, true) => Mode::Pod,
        _ => Mode::Container,
    };
    cri::NamespaceOption {
        network: if on(spec.host_network) { Mode::Node } else { Mode::Pod } as i32,
        pid: pid as i32,
        ipc: if on(spec.host_ipc) { Mode::Node } else { Mode::Pod } as i32,
        target_id: String::new(),
        userns_options: None,
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = &pods::spec(pod).security_context else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(pod: &Pod) -> i32 {
    let policy = pods::spec(pod).security_context.as_ref().and_then(|c| c.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") { cri::SupplementalGroupsPolicy::Strict as i32 } else { 0 }
}

/// The sandbox's own context.
pub fn sandbox(pod: &Pod, node: &Node) -> cri::LinuxSandboxSecurityContext {
    let context = pods::spec(pod).security_context.clone().unwrap_or_default();
    let privileged = pods::containers(pod).iter().any(|(_, c)| is_privileged(c));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(context.se_linux_options.as_ref()),
        run_as_user: context.run_as_user.and_then(int),
        run_as_group: context.run_as_group.and_then(int),
        readonly_rootfs: false,
        supplemental_groups: groups(pod),
        privileged,
        // The sandbox runs nothing of the user's.
        seccomp: seccomp(context.seccomp_profile.as_ref(), true, &node.seccomp_root),
        supplemental_groups_policy: groups_policy(pod),
        ..cri::LinuxSandboxSecurityContext::default()
    }
}

pub fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|c| c.privileged).unwrap_or(false)
}

pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|c| c.run_as_user);
    own.or(pods::spec(pod).security_context.as_ref().and_then(|c| c.run_as_user))
}

/// Whether the pod wants no root process; the runtime is told, and checks the user that the container gets.
pub fn must_not_run_as_root(pod: &Pod, container: &Container) -> bool {
    let own = container.security_context.as_ref().and_then(|c| c.run_as_non_root);
    own.or(pods::spec(pod).security_context.as_ref().and_then(|c| c.run_as_non_root)) == Some(true)
}

/// Who an image runs as if nobody says otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub username: String,
}

/// Refuses a root process where the pod wants none.
pub fn check_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), String> {
    if !must_not_run_as_root(pod, container) {
        return Ok(());
    }
    let at = format!("(pod: \"{}\", container: {})", pods::shown(pod), container.name);
    match (run_as_user(pod, container), image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {at}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("{} {at}", wire::RUNS_AS_ROOT)),
        (None, None) if !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {at}",
            image.username
        )),
        (None, None) => Err(format!("{} {at}", wire::RUNS_AS_ROOT)),
        (None, Some(_)) => Ok(()),
    }
}

/// A container's context. `target`: the container whose process namespace an ephemeral one joins.
pub fn container(
    pod: &Pod,
    container_type: ContainerType,
    container: &Container,
    image: &ImageUser,
    target: Option<String>,
    node: &Node,
) -> cri::LinuxContainerSecurityContext {
    let own = container.security_context.clone().unwrap_or_default();
    let of_pod = pods::spec(pod).security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let mut options = namespaces(pod);
    if let (ContainerType::Ephemeral, Some(target)) = (container_type, target) {
        options.pid = cri::NamespaceMode::Target as i32;
        options.target_id = target;
    }
    let user = run_as_user(pod, container);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let wanted = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let escalation = own.allow_privilege_escalation.unwrap_or(true);
    let apparmor = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(capabilities),
        privileged,
        namespace_options: Some(options),
        selinux_options: selinux(own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref())),
        run_as_user: user.or(image.uid.filter(|_| image.username.is_empty())).and_then(int),
        run_as_username: if user.is_none() { image.username.clone() } else { String::new() },
        run_as_group: own.run_as_group.or(of_pod.run_as_group).and_then(int),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(pod),
        no_new_privs: !escalation,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: seccomp(wanted, node.seccomp_default, &node.seccomp_root).filter(|_| !privileged || wanted.is_some()),
        apparmor: apparmor.map(|p| profile(&p.type_, p.localhost_profile.as_deref(), "")),
        supplemental_groups_policy: groups_policy(pod),
        ..cri::LinuxContainerSecurityContext::default()
    }
}

fn capabilities(wanted: &Capabilities) -> cri::Capability {
    cri::Capability {
        add_capabilities: wanted.add.clone().unwrap_or_default(),
        drop_capabilities: wanted.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_speaks_before_the_pod() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "hostNetwork": true, "securityContext": {"runAsUser": 7, "runAsNonRoot": true, "fsGroup": 9,
                "sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
            "containers": [{"name": "c", "securityContext": {"runAsUser": 0, "allowPrivilegeEscalation": false}},
                           {"name": "d", "securityContext": {"privileged": true}}]}}))
        .unwrap();
        let [c, d] = &pod.spec.as_ref().unwrap().containers[..] else { panic!() };
        let node = Node::default();
        let made = container(&pod, ContainerType::Regular, c, &ImageUser::default(), None, &node);
        assert_eq!(made.run_as_user, int(0));
        assert!(made.no_new_privs && !made.masked_paths.is_empty());
        assert_eq!(made.supplemental_groups, [9]);
        assert_eq!(made.namespace_options.unwrap().network, cri::NamespaceMode::Node as i32);
        assert!(check_non_root(&pod, c, &ImageUser::default()).unwrap_err().contains("breaks non-root policy"));
        assert!(check_non_root(&pod, d, &ImageUser::default()).is_ok(), "the pod's user 7 is not root");
        let made = container(&pod, ContainerType::Regular, d, &ImageUser::default(), None, &node);
        assert!(made.privileged && made.masked_paths.is_empty() && made.seccomp.is_none());
        assert!(must_not_run_as_root(&pod, c), "the runtime is told");
        assert!(forbidden_sysctl(&pod, &[]).is_some());
        assert!(forbidden_sysctl(&pod, &["kernel.msg*".into()]).is_none());
    }
}
