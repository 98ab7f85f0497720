//! A table of pods, each with what every standard says of it.

use serde_json::{Value, json};

use super::super::policy::{Level, Version};
use super::*;

const LATEST: Version = Version(None);

fn judge(level: Level, version: Version, pod: &Value) -> String {
    details(&evaluate(Standard { level, version }, &pod["metadata"], &pod["spec"]))
}

/// A pod with one container that satisfies everything.
fn hardened() -> Value {
    json!({
        "metadata": {"name": "p"},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            }}],
        },
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut pod = hardened();
    let mut place = &mut pod;
    for part in path.split('/') {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
    pod
}

#[test]
fn an_ordinary_pod_passes_baseline_and_needs_four_things_for_restricted() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "nginx"}]}});
    assert_eq!(judge(Level::Privileged, LATEST, &pod), "");
    assert_eq!(judge(Level::Baseline, LATEST, &pod), "");
    assert_eq!(
        judge(Level::Restricted, LATEST, &pod),
        "allowPrivilegeEscalation != false (container \"nginx\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"nginx\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"nginx\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"nginx\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(judge(Level::Restricted, LATEST, &hardened()), "");
}

#[test]
fn what_baseline_forbids() {
    let cases: [(&str, Value, &str); 20] = [
        ("spec/hostNetwork", json!(true), "host namespaces (hostNetwork=true)"),
        ("spec/hostPID", json!(true), "host namespaces (hostPID=true)"),
        ("spec/volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), "hostPath volumes (volume \"v\")"),
        (
            "spec/containers/0/ports",
            json!([{"hostPort": 80}, {"hostPort": 443}, {"containerPort": 1}]),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            "spec/containers/0/livenessProbe",
            json!({"httpGet": {"host": "10.0.0.1"}}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (
            "spec/containers/0/lifecycle",
            json!({"preStop": {"tcpSocket": {"host": "x"}}}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"x\")",
        ),
        (
            "spec/containers/0/securityContext/privileged",
            json!(true),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            "spec/containers/0/securityContext/capabilities",
            json!({"add": ["NET_ADMIN", "CHOWN", "BPF"], "drop": ["ALL"]}),
            "non-default capabilities (container \"a\" must not include \"BPF\", \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            "spec/containers/0/securityContext/procMount",
            json!("Unmasked"),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            "spec/containers/0/securityContext/seLinuxOptions",
            json!({"type": "spc_t", "user": "u"}),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            "spec/securityContext/seLinuxOptions",
            json!({"role": "r"}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: role may not be set)",
        ),
        (
            "spec/securityContext/seccompProfile",
            json!({"type": "Unconfined"}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "spec/containers/0/securityContext/appArmorProfile",
            json!({"type": "Unconfined"}),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            "metadata/annotations",
            json!({"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}),
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")",
        ),
        (
            "spec/securityContext/sysctls",
            json!([{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}, {"name": "net.world.somaxconn"}]),
            "forbidden sysctls (kernel.msgmax, net.world.somaxconn)",
        ),
        (
            "spec/securityContext/windowsOptions",
            json!({"hostProcess": true}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            "spec/initContainers",
            json!([{"name": "i", "securityContext": {"privileged": true}}]),
            "privileged (container \"i\" must not set securityContext.privileged=true)",
        ),
        (
            "spec/ephemeralContainers",
            json!([{"name": "e", "ports": [{"hostPort": 1}]}]),
            "hostPort (container \"e\" uses hostPort 1)",
        ),
        ("spec/containers/0/ports", json!([{"hostPort": 0}]), ""),
        ("spec/volumes", json!([{"name": "v", "nfs": {"path": "/"}}]), ""),
    ];
    for (path, value, wanted) in cases {
        assert_eq!(judge(Level::Baseline, LATEST, &with(path, value.clone())), wanted, "{path} = {value}");
    }
}

#[test]
fn what_restricted_forbids_besides() {
    let cases: [(&str, Value, &str); 9] = [
        (
            "spec/volumes",
            json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {}}, {"name": "s", "secret": {}}]),
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
        (
            "spec/containers/0/securityContext/capabilities",
            json!({"add": ["CHOWN", "NET_BIND_SERVICE"]}),
            "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            "spec/containers/0/securityContext/runAsNonRoot",
            json!(false),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (
            "spec/containers/0/securityContext/runAsUser",
            json!(0),
            "runAsUser=0 (container \"a\" must not set runAsUser=0)",
        ),
        ("spec/securityContext/runAsUser", json!(0), "runAsUser=0 (pod must not set runAsUser=0)"),
        (
            "spec/securityContext",
            json!({"runAsNonRoot": true}),
            "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
        (
            "spec/containers/0/securityContext/seccompProfile",
            json!({"type": "Unconfined"}),
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        ("spec/containers/0/securityContext/capabilities", json!({"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}), ""),
        ("spec/hostUsers", json!(false), ""),
    ];
    for (path, value, wanted) in cases {
        assert_eq!(judge(Level::Restricted, LATEST, &with(path, value.clone())), wanted, "{path} = {value}");
    }
}

#[test]
fn older_standards_lack_what_came_later() {
    let bare = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(judge(Level::Restricted, Version(Some(7)), &bare).matches(" (").count(), 1, "only runAsNonRoot");
    let probed = with("spec/containers/0/livenessProbe", json!({"httpGet": {"host": "h"}}));
    assert_eq!(judge(Level::Baseline, Version(Some(33)), &probed), "");
    let sysctl = with("spec/securityContext/sysctls", json!([{"name": "net.ipv4.tcp_fin_timeout"}]));
    assert_eq!(judge(Level::Baseline, Version(Some(28)), &sysctl), "forbidden sysctls (net.ipv4.tcp_fin_timeout)");
    assert_eq!(judge(Level::Baseline, Version(Some(29)), &sysctl), "");
    let root = with("spec/securityContext/runAsUser", json!(0));
    assert_eq!(judge(Level::Restricted, Version(Some(22)), &root), "");
    let annotated = with("metadata/annotations", json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}));
    assert_eq!(
        judge(Level::Baseline, Version(Some(18)), &annotated),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
    );
    assert_eq!(judge(Level::Baseline, Version(Some(19)), &annotated), "");
    let windows = with("spec/os", json!({"name": "windows"}));
    let mut windows_bare = bare.clone();
    windows_bare["spec"]["os"] = windows["spec"]["os"].clone();
    assert_eq!(
        judge(Level::Restricted, LATEST, &windows_bare),
        "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)"
    );
}

#[test]
fn a_pod_with_users_of_its_own_may_be_root_and_see_all_of_proc_up_to_baseline() {
    let mut pod = with("spec/hostUsers", json!(false));
    pod["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
    pod["spec"]["securityContext"]["runAsUser"] = json!(0);
    assert_eq!(judge(Level::Restricted, LATEST, &pod), "");
    assert_eq!(judge(Level::Restricted, Version(Some(34)), &pod).matches(" (").count(), 2);
    pod["spec"]["containers"][0]["securityContext"]["procMount"] = json!("Unmasked");
    let told = "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")";
    assert_eq!(judge(Level::Baseline, LATEST, &pod), "");
    assert_eq!(judge(Level::Baseline, Version(Some(34)), &pod), told);
    assert_eq!(judge(Level::Restricted, LATEST, &pod), told);
}

#[test]
fn the_table_is_in_order() {
    for level in [Level::Baseline, Level::Restricted] {
        let ids: Vec<&str> = RULES.iter().filter(|rule| rule.level == level).map(|rule| rule.id).collect();
        assert!(ids.is_sorted(), "{ids:?}");
    }
    for rule in RULES {
        assert!(rule.since.is_sorted_by(|a, b| a.0 > b.0), "{}: newest first", rule.id);
        assert!(rule.instead_of.is_empty() || RULES.iter().any(|other| other.id == rule.instead_of), "{}", rule.id);
    }
}
