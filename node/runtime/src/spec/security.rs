//! Privileges of a container: capabilities, devices, and what is refused because nothing here could enforce it. Pure.

use linux::caps::{self, Sets};
use linux::cgroup::DeviceRule;
use wire::cri;

use super::Refusal;

/// What a container's root may do unless the pod says otherwise: the set that container runtimes agree on.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The capability sets: defaults, then additions, then removals; `ALL` stands for every one. Limited to what the host
/// lets this process give.
pub fn capabilities(security: &cri::LinuxContainerSecurityContext, available: u64) -> Result<Sets, Refusal> {
    if security.privileged {
        return Ok(Sets { bounding: available, effective: available, ambient: 0 });
    }
    let bits = |list: &[String]| {
        list.iter().try_fold(0, |set, name| match name.to_ascii_uppercase().as_str() {
            "ALL" => Ok(set | caps::ALL),
            _ => caps::bit(name).map(|bit| set | bit).ok_or_else(|| format!("unknown capability {name:?}")),
        })
    };
    let defaults = DEFAULT_CAPABILITIES.iter().filter_map(|name| caps::bit(name)).fold(0, |set, bit| set | bit);
    let wish = security.capabilities.clone().unwrap_or_default();
    let (add, drop) = (bits(&wish.add_capabilities)?, bits(&wish.drop_capabilities)?);
    let names_all = |list: &[String]| list.iter().any(|n| n.eq_ignore_ascii_case("ALL"));
    let mut set = if names_all(&wish.drop_capabilities) { 0 } else { defaults };
    if names_all(&wish.add_capabilities) {
        set = caps::ALL;
    }
    // "Drop ALL, add one" keeps the one; "add ALL, drop one" lacks it.
    let named = |list: &[String]| list.iter().filter_map(|n| caps::bit(n)).fold(0, |set, bit| set | bit);
    set |= named(&wish.add_capabilities);
    set &= !named(&wish.drop_capabilities);
    debug_assert!(add | drop | set <= caps::ALL);
    let set = set & available;
    let ambient = bits(&wish.add_ambient_capabilities)?;
    Ok(Sets {
        bounding: set | (ambient & available),
        effective: set | (ambient & available),
        ambient: ambient & available,
    })
}

/// Devices that every container may use: those in its /dev, making nodes of any kind, terminals.
pub fn default_device_rules() -> Vec<DeviceRule> {
    let one = |major, minor| DeviceRule::new('c', Some(major), minor, "rwm");
    vec![
        DeviceRule::new('c', None, None, "m"),
        DeviceRule::new('b', None, None, "m"),
        one(1, Some(3)),
        one(1, Some(5)),
        one(1, Some(7)),
        one(1, Some(8)),
        one(1, Some(9)),
        one(5, Some(0)),
        one(5, Some(1)),
        one(5, Some(2)),
        one(136, None),
    ]
}

/// Whether this host's kernel labels processes with SELinux. Where it doesn't, labels mean nothing to anybody, and are
/// passed over as by every runtime.
pub fn selinux_enabled() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
}

/// Refuses what would silently not protect: security modules that this runtime does not drive.
pub fn refuse_unsupported(
    security: &cri::LinuxContainerSecurityContext,
    sandbox: &cri::PodSandboxConfig,
    selinux_enabled: bool,
) -> Result<(), Refusal> {
    use cri::security_profile::ProfileType;
    let named = security.apparmor.as_ref().is_some_and(|p| p.profile_type() == ProfileType::Localhost);
    if named || security.apparmor_profile.starts_with("localhost/") {
        return Err("an AppArmor profile was requested, but AppArmor is not supported here".into());
    }
    let pod = sandbox.linux.as_ref().and_then(|l| l.security_context.as_ref());
    let labels = [security.selinux_options.as_ref(), pod.and_then(|p| p.selinux_options.as_ref())];
    if selinux_enabled && labels.into_iter().flatten().any(|l| *l != cri::SeLinuxOption::default()) {
        return Err("SELinux options were requested, but this runtime doesn't set labels".into());
    }
    let namespaces = security.namespace_options.as_ref().and_then(|n| n.userns_options.as_ref());
    if namespaces.is_some_and(|u| u.mode() == cri::NamespaceMode::Pod) {
        return Err("user namespaces are not supported: set hostUsers to true".into());
    }
    Ok(())
}
