//! What a container may not do, tried from inside.

use wire::cri::security_profile::ProfileType;
use wire::cri::*;

use crate::Test;
use crate::host::{archive, busybox_layer, security, shell, tar, with_host};

pub const TESTS: &[Test] = &[
    ("security::capabilities_are_limited", capabilities_are_limited),
    ("security::seccomp_refuses_calls", seccomp_refuses_calls),
    ("security::users_and_groups", users_and_groups),
    ("security::no_image_passes_for_another_user", no_image_passes_for_another_user),
    ("security::no_new_privileges", no_new_privileges),
    ("security::read_only_root", read_only_root),
    ("security::paths_are_masked_and_read_only", paths_are_masked_and_read_only),
    ("security::devices_of_the_host_are_out_of_reach", devices_of_the_host_are_out_of_reach),
    ("security::nothing_of_the_host_leaks_in", nothing_of_the_host_leaks_in),
    ("security::links_in_images_and_volumes_stay_inside", links_in_images_and_volumes_stay_inside),
    ("security::privileged_containers_get_it_all", privileged_containers_get_it_all),
    ("security::what_cannot_be_enforced_is_refused", what_cannot_be_enforced_is_refused),
    ("security::sysctls_are_the_pods_own", sysctls_are_the_pods_own),
];

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn capabilities_are_limited() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let script = "grep Cap /proc/self/status | tr '\\t' ' '";
        let (text, _) = host.output(&pod, shell("default", script)).await;
        let expected = "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\n\
             CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\n";
        assert_eq!(text, expected);
        let mut few = shell("few", script);
        security(&mut few).capabilities = Some(Capability {
            add_capabilities: list(&["NET_ADMIN"]),
            drop_capabilities: list(&["ALL"]),
            ..Default::default()
        });
        let (text, _) = host.output(&pod, few).await;
        assert!(text.contains("CapEff: 0000000000001000") && text.contains("CapBnd: 0000000000001000"), "{text}");
        let mut user = shell("user", script);
        security(&mut user).run_as_user = Some(Int64Value { value: 1000 });
        let (text, _) = host.output(&pod, user).await;
        assert!(text.contains("CapEff: 0000000000000000"), "others than root have none: {text}");
        host.finish().await;
    });
}

fn seccomp_refuses_calls() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let script = "grep Seccomp: /proc/self/status | tr '\\t' ' '; unshare -U true 2>&1; mkdir /m; \
             mount -t tmpfs none /m 2>&1; chroot / true && echo chrooted";
        let mut config = shell("default", script);
        security(&mut config).seccomp = Some(SecurityProfile::default());
        let (text, _) = host.output(&pod, config).await;
        assert!(text.contains("Seccomp: 2") && text.contains("chrooted"), "{text}");
        assert!(text.contains("unshare(0x10000000): Operation not permitted"), "{text}");
        let (text, _) = host.output(&pod, shell("none", "grep Seccomp: /proc/self/status | tr '\\t' ' '")).await;
        assert_eq!(text, "Seccomp: 0\n");

        let path = host.path("profile.json");
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28},
            {"names":["kill"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}]}"#;
        std::fs::write(&path, profile).unwrap();
        for privileges in [false, true] {
            let name = if privileges { "own" } else { "own-no-new" };
            let mut own = shell(name, "mkdir /x 2>&1; kill -0 1 && echo allowed; kill -10 1; echo not reached");
            let s = security(&mut own);
            s.no_new_privs = !privileges;
            let mut wanted = SecurityProfile { localhost_ref: path.display().to_string(), ..Default::default() };
            wanted.set_profile_type(ProfileType::Localhost);
            s.seccomp = Some(wanted);
            let (text, code) = host.output(&pod, own).await;
            assert_eq!((text.contains("No space left"), text.contains("allowed")), (true, true), "{text}");
            assert_eq!((text.contains("not reached"), code), (false, 128 + 31), "SIGSYS: {text}");
        }
        let mut missing = shell("missing", "true");
        let mut wanted = SecurityProfile { localhost_ref: "/no/such/file".into(), ..Default::default() };
        wanted.set_profile_type(ProfileType::Localhost);
        security(&mut missing).seccomp = Some(wanted);
        assert!(host.create(&pod, missing).await.unwrap_err().message().contains("/no/such/file"));
        host.finish().await;
    });
}

fn users_and_groups() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let id = "echo $(id -u):$(id -g):$(id -G) $HOME; echo ok > /dev/stdout";
        let mut named = shell("named", id);
        security(&mut named).run_as_username = "app".into();
        assert_eq!(host.output(&pod, named).await.0, "1000:1001:1001 50 /home/app\nok\n");
        let mut numbers = shell("numbers", id);
        let s = security(&mut numbers);
        s.run_as_user = Some(Int64Value { value: 4000 });
        s.run_as_group = Some(Int64Value { value: 5000 });
        s.supplemental_groups = vec![6000, 5000];
        let container = host.run(&pod, numbers).await;
        let status = host.ended(&container).await;
        assert_eq!(host.log("numbers"), "4000:5000:5000 6000 /\nok\n");
        let user = status.user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (4000, 5000, vec![5000, 6000]));
        let mut strict = shell("strict", id);
        let s = security(&mut strict);
        s.run_as_user = Some(Int64Value { value: 1000 });
        s.supplemental_groups = vec![60];
        s.set_supplemental_groups_policy(SupplementalGroupsPolicy::Strict);
        assert_eq!(host.output(&pod, strict).await.0, "1000:1001:1001 60 /home/app\nok\n");
        let sleeper = {
            let mut config = shell("sleeper", "sleep 1000");
            security(&mut config).run_as_username = "app".into();
            host.run(&pod, config).await
        };
        assert_eq!(host.exec(&sleeper, "id -u").await.unwrap().0, "1000\n", "an exec is the same user");
        host.finish().await;
    });
}

/// CVE-2024-40635 and its like: what the kubelet checked is what runs.
fn no_image_passes_for_another_user() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let image = |name: &str, user: &str| {
            let liar = tar(&[("etc/passwd", 0o644, b"1000:x:0:0::/:/bin/sh\napp:x:0:0::/:/bin/sh\n")]);
            archive(name, &[busybox_layer(), liar], serde_json::json!({"User": user}))
        };
        let of = |name: &str, image: &str| {
            let mut config = shell(name, "echo $(id -u):$(id -g)");
            config.image = Some(ImageSpec { image: image.into(), ..Default::default() });
            config.annotations = [(wire::RUN_AS_NON_ROOT.to_owned(), "true".to_owned())].into();
            config
        };
        for (name, user) in [("minus:1", "4294967295"), ("big:1", "2147483648:1000"), ("group:1", "1000:4294967295")] {
            host.import(image(name, user)).await;
            let error = host.create(&pod, of("refused", name)).await.unwrap_err();
            assert!(error.message().contains("must be in range 0-2147483647"), "{user}: {error:?}");
        }
        host.import(image("number:1", "1000")).await;
        assert_eq!(host.output(&pod, of("number", "number:1")).await.0, "1000:0\n", "the number is the ID");
        for (name, user) in [("named:1", "app"), ("none:1", ""), ("zero:1", "+0")] {
            host.import(image(name, user)).await;
            let error = host.create(&pod, of("root", name)).await.unwrap_err();
            assert_eq!(error.message(), wire::RUNS_AS_ROOT, "{user}");
        }
        let status = |image: &str| ImageStatusRequest {
            image: Some(ImageSpec { image: image.into(), ..Default::default() }),
            verbose: false,
        };
        let image = host.images.image_status(status("number:1")).await.unwrap().into_inner().image.unwrap();
        assert_eq!((image.uid, image.username.as_str()), (Some(Int64Value { value: 1000 }), ""));
        for change in [-1, 1 << 31, i64::from(u32::MAX)] {
            let mut config = shell("ids", "id");
            security(&mut config).supplemental_groups = vec![change];
            assert!(host.create(&pod, config).await.unwrap_err().message().contains("must be in range"), "{change}");
            let mut config = shell("ids", "id");
            security(&mut config).run_as_user = Some(Int64Value { value: change });
            assert!(host.create(&pod, config).await.unwrap_err().message().contains("must be in range"), "{change}");
            let mut config = shell("ids", "id");
            security(&mut config).run_as_user = Some(Int64Value { value: 1 });
            security(&mut config).run_as_group = Some(Int64Value { value: change });
            assert!(host.create(&pod, config).await.unwrap_err().message().contains("must be in range"), "{change}");
        }
        host.finish().await;
    });
}

fn no_new_privileges() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        for (on, line) in [(true, "NoNewPrivs: 1\n"), (false, "NoNewPrivs: 0\n")] {
            let mut config = shell(&format!("nnp-{on}"), "grep NoNewPrivs /proc/self/status | tr '\\t' ' '");
            security(&mut config).no_new_privs = on;
            assert_eq!(host.output(&pod, config).await.0, line);
        }
        host.finish().await;
    });
}

fn read_only_root() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let script = "echo x > /x && echo written; echo x > /etc/hostname && echo written; \
             echo x > /dev/shm/x && echo shm; echo x > /vol/x && echo volume";
        let mut config = shell("ro", script);
        security(&mut config).readonly_rootfs = true;
        config.mounts = vec![Mount {
            container_path: "/vol".into(),
            host_path: host.path("vol").display().to_string(),
            ..Default::default()
        }];
        let (text, _) = host.output(&pod, config).await;
        let lines: Vec<&str> = text.lines().filter(|l| !l.contains("Read-only")).collect();
        assert_eq!(lines, ["shm", "volume"], "{text}");
        host.finish().await;
    });
}

fn paths_are_masked_and_read_only() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let script = "wc -c < /proc/version; ls /proc/scsi 2>/dev/null | wc -l; ls /proc/acpi | wc -l; \
             echo 1 > /proc/sys/kernel/panic || echo refused; echo x > /sys/power/state || echo refused; \
             cat /proc/meminfo | wc -c";
        let mut config = shell("masked", script);
        let s = security(&mut config);
        s.masked_paths = list(&["/proc/version", "/proc/acpi", "/proc/meminfo", "/proc/scsi", "/proc/not-there"]);
        s.readonly_paths = list(&["/proc/sys", "/proc/bus", "/proc/not-there"]);
        let (text, _) = host.output(&pod, config).await;
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("sh:") && !l.contains("can't")).collect();
        assert_eq!(lines, ["0", "0", "0", "refused", "refused", "0"], "{text}");
        host.finish().await;
    });
}

fn devices_of_the_host_are_out_of_reach() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        // Making nodes is allowed by the default capabilities; using them must not be.
        let script = "mknod /kmsg c 1 11 && echo made; head -c 1 /kmsg 2>&1; mknod /disk b 254 0; head -c 1 /disk 2>&1; \
             head -c 3 /dev/zero | wc -c; echo x > /dev/null && echo null; ls /dev | tr '\\n' ' '";
        let (text, _) = host.output(&pod, shell("devices", script)).await;
        assert!(text.starts_with("made\n"), "{text}");
        assert_eq!(text.matches("Operation not permitted").count(), 2, "{text}");
        assert!(text.contains("3\nnull\n"), "{text}");
        let names = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
        assert!(text.contains(names), "{text}");
        let mut given =
            shell("given", "head -c 1 /dev/given >/dev/null && echo readable; echo x > /dev/given || echo refused");
        given.devices = vec![Device {
            container_path: "/dev/given".into(),
            host_path: "/dev/urandom".into(),
            permissions: "r".into(),
        }];
        assert!(host.output(&pod, given).await.0.contains("readable"));
        host.finish().await;
    });
}

fn nothing_of_the_host_leaks_in() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let script = "ls -l /proc/self/fd; cat /proc/self/mountinfo; ls /; cat /proc/1/cgroup; env";
        let id = host.sh(&pod, "look", &format!("{script}; sleep 1000")).await;
        while !host.log("look").contains("HOSTNAME=") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let text = host.log("look");
        let fds = text.lines().filter(|l| l.contains(" -> ")).count();
        assert_eq!(fds, 3, "standard streams only: {text}");
        assert!(!text.contains("/run/pods") || text.contains("resolv.conf"), "{text}");
        assert!(!text.contains("CARGO"), "the daemon's environment stays outside: {text}");
        // Our helper of an exec must not show the host through /proc (CVE-2019-5736, CVE-2024-21626).
        let leak = "for p in /proc/[0-9]*; do readlink $p/exe $p/cwd $p/root; ls -l $p/fd; done 2>/dev/null | grep -c ferrokube";
        let (out, ..) = host.exec(&id, leak).await.unwrap();
        assert_eq!(out, "0\n");
        let mut escape = shell("cwd", "pwd; ls");
        escape.working_dir = "/proc/self/fd/7".into();
        let id = host.create(&pod, escape).await.unwrap();
        let started = host.start_container(&id).await;
        assert!(started.is_err() || host.ended(&id).await.exit_code != 0 || !host.log("cwd").contains("root"));
        host.finish().await;
    });
}

fn links_in_images_and_volumes_stay_inside() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let victim = host.path("victim");
        std::fs::create_dir_all(&victim).unwrap();
        // A volume with a link to a host directory; a mount goes to a path behind the link.
        let volume = host.path("volume");
        std::fs::create_dir_all(&volume).unwrap();
        std::os::unix::fs::symlink(&victim, volume.join("link")).unwrap();
        let mount = |container: &str, path: &std::path::Path| Mount {
            container_path: container.into(),
            host_path: path.display().to_string(),
            ..Default::default()
        };
        let source = host.path("source");
        std::fs::create_dir_all(&source).unwrap();
        let mut config = shell("links", "echo x > /v/link/made && echo inside");
        config.mounts = vec![mount("/v", &volume)];
        assert!(!host.output(&pod, config).await.0.contains("inside"));
        let mut config = shell("behind", "true");
        config.mounts = vec![mount("/v", &volume), mount("/v/link/sub", &source)];
        let id = host.create(&pod, config).await.unwrap();
        assert!(host.start_container(&id).await.is_err());
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0, "nothing was made outside");
        // /proc may not be covered in part.
        let mut proc = shell("proc", "true");
        proc.mounts = vec![mount("/proc/sys", &source)];
        let id = host.create(&pod, proc).await.unwrap();
        assert!(host.start_container(&id).await.unwrap_err().message().contains("/proc"));
        host.finish().await;
    });
}

fn privileged_containers_get_it_all() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let script = "mkdir /m; mount -t tmpfs none /m && echo mounted; ls /dev/kmsg; \
             touch /sys/fs/cgroup 2>&1 && echo writable; grep Seccomp: /proc/self/status | tr '\\t' ' '";
        let mut config = shell("privileged", script);
        let s = security(&mut config);
        s.privileged = true;
        s.seccomp = Some(SecurityProfile::default());
        s.masked_paths = list(&["/proc/kcore"]);
        let (text, _) = host.output(&pod, config).await;
        for expected in ["mounted", "/dev/kmsg", "Seccomp: 0"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        host.finish().await;
    });
}

fn what_cannot_be_enforced_is_refused() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut armored = shell("armored", "true");
        let mut wanted = SecurityProfile { localhost_ref: "mine".into(), ..Default::default() };
        wanted.set_profile_type(ProfileType::Localhost);
        security(&mut armored).apparmor = Some(wanted);
        let error = host.create(&pod, armored).await.unwrap_err();
        assert!(error.message().contains("AppArmor is not supported"), "{error:?}");
        host.finish().await;
    });
}

fn sysctls_are_the_pods_own() {
    with_host(|mut host| async move {
        let before = std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap();
        let pod = host
            .pod(|config| {
                let sysctls = [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_local_port_range", "1024 2000")];
                let sysctls = sysctls.map(|(k, v)| (k.to_owned(), v.to_owned()));
                config.linux.as_mut().unwrap().sysctls = sysctls.into();
            })
            .await;
        let script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range \
             /proc/sys/net/ipv4/ip_unprivileged_port_start";
        let (text, _) = host.output(&pod, shell("sysctl", script)).await;
        assert_eq!(text, "1\n1024\t2000\n0\n");
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap(), before);
        let mut bad = pod.1.clone();
        bad.metadata.as_mut().unwrap().attempt = 1;
        bad.linux.as_mut().unwrap().sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
        let request = RunPodSandboxRequest { config: Some(bad), runtime_handler: String::new() };
        let error = host.cri.run_pod_sandbox(request).await.unwrap_err();
        assert!(error.message().contains("not namespaced"), "{error:?}");
        host.finish().await;
    });
}
