//! Specifications from requests: the rules a user of containers knows.

use super::*;
use linux::caps;

fn text(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn caps_of(add: &[&str], drop: &[&str]) -> Result<Vec<&'static str>, String> {
    let wish = cri::Capability {
        add_capabilities: text(add),
        drop_capabilities: text(drop),
        add_ambient_capabilities: vec![],
    };
    let security = cri::LinuxContainerSecurityContext { capabilities: Some(wish), ..Default::default() };
    capabilities(&security, caps::ALL).map(|sets| caps::names(sets.effective))
}

#[test]
fn commands_override_the_images() {
    let image = RunConfig { entrypoint: text(&["/entry"]), cmd: text(&["a"]), ..Default::default() };
    for (command, args, line) in [
        (&[][..], &[][..], &["/entry", "a"][..]),
        (&["/x"], &[], &["/x"]),
        (&[], &["b"], &["/entry", "b"]),
        (&["/x"], &["b"], &["/x", "b"]),
    ] {
        let config = cri::ContainerConfig { command: text(command), args: text(args), ..Default::default() };
        assert_eq!(command_line(&config, &image).unwrap(), text(line));
    }
    assert!(command_line(&cri::ContainerConfig::default(), &RunConfig::default()).is_err());
}

#[test]
fn capabilities_add_and_drop() {
    assert_eq!(caps_of(&[], &[]).unwrap().len(), 14);
    assert_eq!(caps_of(&["NET_ADMIN"], &["ALL"]).unwrap(), ["NET_ADMIN"]);
    assert!(!caps_of(&["ALL"], &["SYS_ADMIN"]).unwrap().contains(&"SYS_ADMIN"));
    assert!(!caps_of(&[], &["CAP_NET_RAW"]).unwrap().contains(&"NET_RAW"));
    assert!(caps_of(&["FLY"], &[]).unwrap_err().contains("FLY"));
    let privileged = cri::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    assert_eq!(capabilities(&privileged, 7).unwrap().effective, 7, "never more than the host gives");
}

#[test]
fn stop_signals_by_name_and_number() {
    let image = |s: &str| RunConfig { stop_signal: s.into(), ..Default::default() };
    let none = cri::ContainerConfig::default();
    for (given, number) in [("", 15), ("SIGQUIT", 3), ("9", 9), ("usr1", 10), ("SIGRTMIN+3", 37), ("nonsense", 15)] {
        assert_eq!(stop_signal(&none, &image(given)), number, "{given}");
    }
    let mut config = cri::ContainerConfig::default();
    config.set_stop_signal(cri::Signal::Sigrtmaxminus2);
    assert_eq!(stop_signal(&config, &image("SIGQUIT")), 62, "the pod's wish goes first");
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let mut security = cri::LinuxContainerSecurityContext::default();
    let sandbox = cri::PodSandboxConfig::default();
    assert_eq!(refuse_unsupported(&security, &sandbox, true), Ok(()));
    let mut profile = cri::SecurityProfile { localhost_ref: "mine".into(), ..Default::default() };
    profile.set_profile_type(cri::security_profile::ProfileType::Localhost);
    security.apparmor = Some(profile);
    assert!(refuse_unsupported(&security, &sandbox, false).unwrap_err().contains("AppArmor"));
    security.apparmor = None;
    security.selinux_options = Some(cri::SeLinuxOption { level: "s0:c1".into(), ..Default::default() });
    assert!(refuse_unsupported(&security, &sandbox, true).unwrap_err().contains("SELinux"));
    assert_eq!(refuse_unsupported(&security, &sandbox, false), Ok(()), "nothing labels on such a host");
}

#[test]
fn limits_leave_unset_what_is_zero() {
    let resources = cri::LinuxContainerResources {
        cpu_shares: 102,
        memory_limit_in_bytes: 1 << 20,
        cpu_quota: -1,
        ..Default::default()
    };
    let limits = limits(&resources);
    assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.cpu_period), (Some(102), Some(-1), None));
    assert_eq!((limits.memory, limits.memory_swap), (Some(1 << 20), Some(1 << 20)));
}
