//! Sandboxes and containers from creation to removal.

use testkit::http2::{Answer, Ask, ask};
use tonic::Code;
use wire::cri::*;

use crate::Test;
use crate::host::{namespaces, security, shell, with_host};

pub const TESTS: &[Test] = &[
    ("lifecycle::a_call_whose_authority_is_a_path_is_answered", a_call_whose_authority_is_a_path_is_answered),
    ("lifecycle::a_container_runs_logs_and_ends", a_container_runs_logs_and_ends),
    ("lifecycle::a_container_that_cannot_start_says_why", a_container_that_cannot_start_says_why),
    ("lifecycle::stopping_asks_first_and_kills_then", stopping_asks_first_and_kills_then),
    ("lifecycle::unknown_ids_and_wrong_states", unknown_ids_and_wrong_states),
    ("lifecycle::memory_limits_end_in_oom_killed", memory_limits_end_in_oom_killed),
    ("lifecycle::pods_share_what_they_should", pods_share_what_they_should),
    ("lifecycle::volumes_and_files_of_the_pod", volumes_and_files_of_the_pod),
    ("lifecycle::files_of_the_pod_are_accounted_to_it", files_of_the_pod_are_accounted_to_it),
    ("lifecycle::a_tree_of_any_depth_is_removed", a_tree_of_any_depth_is_removed),
    ("lifecycle::limits_change_and_statistics_count", limits_change_and_statistics_count),
    ("lifecycle::exec_sync_collects_output", exec_sync_collects_output),
    ("lifecycle::events_tell_of_every_step", events_tell_of_every_step),
    ("lifecycle::logs_go_on_in_a_new_file", logs_go_on_in_a_new_file),
];

/// As gRPC of several languages names a unix socket.
fn a_call_whose_authority_is_a_path_is_answered() {
    with_host(|host| async move {
        let socket = host.path("run/runtime.sock");
        let plain = socket.display().to_string();
        for authority in [plain.as_str(), &plain.replace('/', "%2F"), &format!("unix://{plain}"), "localhost", ""] {
            let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
            let call = Ask { authority, path: "/runtime.v1.RuntimeService/Version", grpc: true };
            assert_eq!(ask(&mut stream, &call).await.unwrap(), Answer::Status(200), "{authority:?}");
        }
        host.finish().await;
    });
}

fn a_container_runs_logs_and_ends() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let script = "echo hello; echo oops >&2; hostname; echo $FROM_IMAGE $$ $HOSTNAME $HOME; printf tail; exit 3";
        let id = host.sh(&pod, "one", script).await;
        let status = host.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
        assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at);
        assert!(status.log_path.ends_with("/logs/one.log"));
        let mut lines: Vec<String> = host.log("one").lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["hello", "oops", "pod-host", "tail", "yes 1 pod-host /root"]);
        let id = host.sh(&pod, "two", "exit 0").await;
        assert_eq!(host.ended(&id).await.reason, "Completed");
        host.finish().await;
    });
}

fn a_container_that_cannot_start_says_why() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut missing = shell("missing", "");
        missing.command = vec!["no-such-program".into()];
        let mut absent = shell("absent", "");
        absent.command = vec!["/no/such/program".into()];
        let mut directory = shell("directory", "");
        directory.command = vec!["/bin".into()];
        for (config, words) in [
            (missing, "exec: \"no-such-program\": executable file not found in $PATH"),
            (absent, "exec: \"/no/such/program\": stat /no/such/program: No such file or directory"),
            (directory, "exec: \"/bin\": Permission denied"),
        ] {
            let id = host.create(&pod, config).await.unwrap();
            let error = host.start_container(&id).await.unwrap_err();
            assert!(error.message().contains(words), "{error:?}");
            let status = host.status(&id).await;
            assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 128));
            assert_eq!(status.reason, "StartError");
            assert!(status.message.contains(words));
        }
        let mut unknown = shell("unknown-user", "");
        security(&mut unknown).run_as_username = "nobody-here".into();
        let error = host.create(&pod, unknown).await.unwrap_err();
        assert!(error.message().contains("no matching entries in passwd file"), "{error:?}");
        let mut no_image = shell("no-image", "");
        no_image.image = Some(ImageSpec { image: "not-there".into(), ..Default::default() });
        assert_eq!(host.create(&pod, no_image).await.unwrap_err().code(), Code::NotFound);
        host.finish().await;
    });
}

fn stopping_asks_first_and_kills_then() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let polite = host.sh(&pod, "polite", "trap 'echo bye; exit 7' TERM; sleep 1000 & wait").await;
        while host.exec(&polite, "grep -q sleep /proc/[0-9]*/cmdline").await.unwrap().2 != 0 {}
        let stop = |id: &str, timeout| StopContainerRequest { container_id: id.into(), timeout };
        host.cri.stop_container(stop(&polite, 10)).await.unwrap();
        assert_eq!(host.status(&polite).await.exit_code, 7);
        assert_eq!(host.log("polite"), "bye\n");
        let stubborn = host.sh(&pod, "stubborn", "trap '' TERM; while true; do sleep 1; done").await;
        host.cri.stop_container(stop(&stubborn, 1)).await.unwrap();
        let status = host.status(&stubborn).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        host.cri.stop_container(stop(&stubborn, 1)).await.unwrap();
        host.finish().await;
    });
}

fn unknown_ids_and_wrong_states() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let status = ContainerStatusRequest { container_id: "nope".into(), verbose: false };
        assert_eq!(host.cri.container_status(status).await.unwrap_err().code(), Code::NotFound);
        let status = PodSandboxStatusRequest { pod_sandbox_id: "nope".into(), verbose: false };
        assert_eq!(host.cri.pod_sandbox_status(status).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(host.start_container("nope").await.unwrap_err().code(), Code::NotFound);
        // Stopping and removing what isn't there is done already.
        host.cri.stop_container(StopContainerRequest { container_id: "nope".into(), timeout: 0 }).await.unwrap();
        host.cri.remove_container(RemoveContainerRequest { container_id: "nope".into() }).await.unwrap();
        host.remove_pod("nope").await;

        let id = host.sh(&pod, "one", "sleep 1000").await;
        assert_eq!(host.start_container(&id).await.unwrap_err().code(), Code::FailedPrecondition);
        let again = host.create(&pod, shell("one", "")).await.unwrap_err();
        assert_eq!(again.code(), Code::AlreadyExists, "{again:?}");
        let twice = RunPodSandboxRequest { config: Some(pod.1.clone()), runtime_handler: String::new() };
        assert_eq!(host.cri.run_pod_sandbox(twice).await.unwrap_err().code(), Code::AlreadyExists);
        let handler = RunPodSandboxRequest { config: Some(pod.1.clone()), runtime_handler: "kata".into() };
        assert_eq!(host.cri.run_pod_sandbox(handler).await.unwrap_err().code(), Code::InvalidArgument);

        host.cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.0.clone() }).await.unwrap();
        assert_eq!(host.status(&id).await.exit_code, 137);
        assert_eq!(host.exec(&id, "true").await.unwrap_err().code(), Code::FailedPrecondition);
        let late = host.create(&pod, shell("late", "")).await.unwrap_err();
        assert_eq!(late.code(), Code::FailedPrecondition);
        let filter = PodSandboxFilter {
            state: Some(PodSandboxStateValue { state: PodSandboxState::SandboxReady as i32 }),
            ..Default::default()
        };
        let ready = ListPodSandboxRequest { filter: Some(filter) };
        assert!(host.cri.list_pod_sandbox(ready).await.unwrap().into_inner().items.is_empty());
        let short = ContainerStatusRequest { container_id: id[..12].into(), verbose: true };
        assert_eq!(host.cri.container_status(short).await.unwrap().into_inner().status.unwrap().id, id);
        host.finish().await;
    });
}

fn memory_limits_end_in_oom_killed() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut config = shell("hungry", "head -c 200000000 /dev/zero | tail; echo not reached $?; exit 1");
        config.linux.as_mut().unwrap().resources =
            Some(LinuxContainerResources { memory_limit_in_bytes: 24 << 20, ..Default::default() });
        let id = host.run(&pod, config).await;
        let status = host.ended(&id).await;
        assert_eq!(status.reason, "OOMKilled", "{status:?}");
        let mut calm = shell("calm", "exit 1");
        calm.linux.as_mut().unwrap().resources =
            Some(LinuxContainerResources { memory_limit_in_bytes: 24 << 20, ..Default::default() });
        let id = host.run(&pod, calm).await;
        assert_eq!(host.ended(&id).await.reason, "Error");
        host.finish().await;
    });
}

fn pods_share_what_they_should() {
    with_host(|mut host| async move {
        let script = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; echo $$; [ -w /dev/shm ] && echo shm; sleep 1000";
        let pod = host.pod(|_| {}).await;
        let (a, b) = (host.sh(&pod, "a", script).await, host.sh(&pod, "b", script).await);
        host.exec(&a, "echo shared > /dev/shm/x").await.unwrap();
        assert_eq!(host.exec(&b, "cat /dev/shm/x").await.unwrap().0, "shared\n");
        while host.log("a").lines().count() < 6 || host.log("b").lines().count() < 6 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (a, b) = (lines(host.log("a")), lines(host.log("b")));
        assert_eq!(a[..3], b[..3], "network, IPC and host name are the pod's");
        assert_ne!(a[3], b[3], "PIDs are the container's");
        assert_eq!((a[4].as_str(), a[5].as_str()), ("1", "shm"));
        let own = ["net", "ipc", "uts"].map(|ns| std::fs::read_link(format!("/proc/self/ns/{ns}")).unwrap());
        assert!(own.iter().zip(&a).all(|(host, pod)| host.to_str().unwrap() != pod));

        let shared = host
            .pod(|config| {
                let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
                security.namespace_options = Some(namespaces(NamespaceMode::Pod));
            })
            .await;
        let mut first = shell("first", "exec sleep 1234");
        security(&mut first).namespace_options = Some(namespaces(NamespaceMode::Pod));
        let mut second =
            shell("second", "grep -l 1234 /proc/[0-9]*/cmdline | grep -v self | head -1; ls /proc/1/root/ 2>&1");
        security(&mut second).namespace_options = Some(namespaces(NamespaceMode::Pod));
        let first = host.run(&shared, first).await;
        let (text, _) = host.output(&shared, second).await;
        assert!(text.contains("/cmdline"), "the other container's process is seen: {text}");
        assert!(!text.contains("etc"), "process 1 of the pod has nothing of the host: {text}");
        let stop = StopContainerRequest { container_id: first.clone(), timeout: 1 };
        host.cri.stop_container(stop).await.unwrap();
        assert_eq!(host.status(&first).await.state(), ContainerState::ContainerExited);

        let host_net = host
            .pod(|config| {
                let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
                security.namespace_options.as_mut().unwrap().set_network(NamespaceMode::Node);
            })
            .await;
        let mut config = shell("hostnet", "readlink /proc/self/ns/net; readlink /proc/self/ns/uts");
        let options = security(&mut config).namespace_options.as_mut().unwrap();
        options.set_network(NamespaceMode::Node);
        let (text, _) = host.output(&host_net, config).await;
        assert_eq!(text, format!("{}\n{}\n", own[0].display(), own[2].display()));
        host.finish().await;
    });
}

/// CVE-2020-8557: what a pod writes to the files that the runtime keeps for it is on the disk, and the pod's.
fn files_of_the_pod_are_accounted_to_it() {
    const WRITTEN: u64 = 8 << 20;
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let fill = "for f in hosts hostname resolv.conf; do head -c 8388608 /dev/zero >> /etc/$f; done; sleep 1000";
        let first = host.sh(&pod, "first", fill).await;
        let second = host.sh(&pod, "second", "sleep 1000").await;
        let files = host.path("root/sandboxes").join(&pod.0);
        let size = |name: &str| std::fs::metadata(files.join(name)).map_or(0, |meta| meta.len());
        while ["hosts", "hostname", "resolv.conf"].iter().any(|name| size(name) < WRITTEN) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let mut used = Vec::new();
        for id in [first, second] {
            let answer = host.cri.container_stats(ContainerStatsRequest { container_id: id }).await.unwrap();
            let layer = answer.into_inner().stats.unwrap().writable_layer.unwrap();
            used.push(layer.used_bytes.unwrap().value);
        }
        assert!(used[0] >= 3 * WRITTEN && used[1] < WRITTEN, "counted once: {used:?}");
        let run = host.path("run/pods").join(&pod.0);
        assert!(!run.join("hosts").exists() && !run.join("resolv.conf").exists(), "nothing of it in memory");
        host.finish().await;
    });
}

/// A pod can nest directories deeper than a stack or path is long, or than there are descriptors: removing it by name
/// would take them all.
fn a_tree_of_any_depth_is_removed() {
    use rustix::fs::{Mode, OFlags};
    const DEPTH: usize = 1_500;
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let id = host.sh(&pod, "deep", "true").await;
        host.ended(&id).await;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = host.path("root/containers").join(&id).join("upper");
        let mut at = rustix::fs::open(&upper, flags, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
        }
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(DEPTH as u64), ..before }).unwrap();
        let removed = host.cri.remove_container(RemoveContainerRequest { container_id: id }).await;
        setrlimit(Resource::Nofile, before).unwrap();
        removed.unwrap();
        assert!(!upper.exists());
        host.finish().await;
    });
}

fn volumes_and_files_of_the_pod() {
    with_host(|mut host| async move {
        let dns = DnsConfig { servers: vec!["10.0.0.10".into()], searches: vec!["a.b".into()], options: vec![] };
        let pod = host.pod(|config| config.dns_config = Some(dns)).await;
        let volume = host.path("volume");
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::write(volume.join("file"), "from host\n").unwrap();
        std::fs::write(host.path("hosts"), "1.2.3.4 me\n").unwrap();
        let mount = |container: &str, path: std::path::PathBuf, readonly| Mount {
            container_path: container.into(),
            host_path: path.display().to_string(),
            readonly,
            ..Default::default()
        };
        let script = "cat /etc/resolv.conf /etc/hosts /etc/hostname /data/rw/file; \
             echo back > /data/rw/sub/out; echo x > /data/ro/no || echo refused; cat /data/ro/file; \
             cat /deep/down/file; ls -d /made; echo x > /made/by-runtime";
        let mut config = shell("volumes", script);
        config.mounts = vec![
            mount("/data/ro", volume.clone(), true),
            mount("/etc/hosts", host.path("hosts"), false),
            mount("/data/rw", volume.clone(), false),
            mount("/deep/down/file", volume.join("file"), true),
            mount("/made", host.path("made-by-runtime"), false),
        ];
        let (text, code) = host.output(&pod, config).await;
        let lines: Vec<&str> = text.lines().filter(|l| !l.contains("Read-only")).collect();
        let expected = ["search a.b", "nameserver 10.0.0.10", "1.2.3.4 me", "pod-host", "from host", "refused"];
        assert_eq!(lines[..6], expected, "{text}");
        assert_eq!(lines[6..], ["from host", "from host", "/made"]);
        assert_eq!(code, 0);
        assert_eq!(std::fs::read_to_string(volume.join("sub/out")).unwrap(), "back\n");
        assert!(host.path("made-by-runtime/by-runtime").exists());
        // As with runc: the working directory may lie in a volume, which is there first.
        let mut within = shell("workdir", "pwd; echo x > made");
        within.working_dir = "/data/rw/app/deep".into();
        within.mounts = vec![mount("/data/rw", volume.clone(), false)];
        assert_eq!(host.output(&pod, within).await, ("/data/rw/app/deep\n".to_owned(), 0));
        assert!(volume.join("app/deep/made").exists());
        std::os::unix::fs::symlink("/", volume.join("out")).unwrap();
        let mut through = shell("through", "pwd");
        through.working_dir = format!("/data/rw/out{}/made-by-cwd", host.path("").display());
        through.mounts = vec![mount("/data/rw", volume.clone(), false)];
        host.output(&pod, through).await;
        assert!(!host.path("made-by-cwd").exists(), "a link in the volume leads nowhere outside");
        let mut image =
            shell("image-volume", "cat /img/etc/passwd | head -1; ls /bin2/sh; echo x > /img/x || echo refused");
        let spec = ImageSpec { image: "busybox:1".into(), ..Default::default() };
        let of_image = |path: &str, sub: &str| Mount {
            container_path: path.into(),
            image: Some(spec.clone()),
            image_sub_path: sub.into(),
            ..Default::default()
        };
        image.mounts = vec![of_image("/img", ""), of_image("/bin2", "bin")];
        let (text, _) = host.output(&pod, image).await;
        assert!(text.contains("root:x:0:0") && text.contains("/bin2/sh") && text.contains("refused"), "{text}");
        host.finish().await;
    });
}

fn limits_change_and_statistics_count() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut config = shell("limits", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; touch /wrote; sleep 1000");
        config.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_shares: 512,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            ..Default::default()
        });
        let id = host.run(&pod, config).await;
        while host.exec(&id, "ls /wrote").await.unwrap().2 != 0 {}
        let more = LinuxContainerResources { memory_limit_in_bytes: 128 << 20, cpu_shares: 1024, ..Default::default() };
        let update =
            UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(more), ..Default::default() };
        host.cri.update_container_resources(update).await.unwrap();
        let resources = host.status(&id).await.resources.unwrap().linux.unwrap();
        assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (128 << 20, 1024));
        assert_eq!(resources.cpu_quota, 50_000, "what an update leaves out stays");
        let stats = host.cri.container_stats(ContainerStatsRequest { container_id: id.clone() }).await.unwrap();
        let stats = stats.into_inner().stats.unwrap();
        let memory = stats.memory.unwrap();
        let value = |v: Option<UInt64Value>| v.unwrap().value;
        assert!(value(stats.cpu.unwrap().usage_core_nano_seconds) > 1_000_000);
        assert!(value(memory.usage_bytes) > 0);
        let available = value(memory.available_bytes) + value(memory.working_set_bytes);
        assert_eq!(available, 128 << 20, "the kernel has the new limit");
        assert!(value(stats.writable_layer.unwrap().inodes_used) >= 1);
        let info = host.images.image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
        assert!(info.image_filesystems[0].used_bytes.as_ref().unwrap().value > 500_000);
        let pods = host.cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await.unwrap();
        assert_eq!(pods.into_inner().stats[0].linux.as_ref().unwrap().containers.len(), 1);
        host.finish().await;
    });
}

fn exec_sync_collects_output() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut config = shell("target", "sleep 1000");
        config.envs = vec![KeyValue { key: "WHO".into(), value: b"me".to_vec().into() }];
        let id = host.run(&pod, config).await;
        let (out, err, code) = host.exec(&id, "echo $WHO; echo no >&2; exit 9").await.unwrap();
        assert_eq!((out.as_str(), err.as_str(), code), ("me\n", "no\n", 9));
        let big = host.exec(&id, "yes | head -c 300000").await.unwrap();
        assert_eq!(big.0.len(), 300_000);
        let slow = ExecSyncRequest {
            container_id: id.clone(),
            cmd: ["sh", "-c", "sleep 77 & sleep 78"].map(str::to_owned).to_vec(),
            timeout: 1,
        };
        let error = host.cri.exec_sync(slow).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        for _ in 0..100 {
            if host.exec(&id, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await.unwrap().0.contains("sleep 7") {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
            break;
        }
        let left = host.exec(&id, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await.unwrap().0;
        assert!(!left.contains("sleep 7"), "what timed out is killed with its children: {left}");
        let request = ExecSyncRequest { container_id: id.clone(), cmd: vec!["nothing".into()], timeout: 5 };
        let error = host.cri.exec_sync(request).await.unwrap_err();
        assert!(error.message().contains("executable file not found in $PATH"), "{error:?}");
        host.finish().await;
    });
}

fn events_tell_of_every_step() {
    with_host(|mut host| async move {
        let mut events = host.cri.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
        let pod = host.pod(|_| {}).await;
        let id = host.sh(&pod, "one", "exit 4").await;
        host.ended(&id).await;
        host.cri.remove_container(RemoveContainerRequest { container_id: id.clone() }).await.unwrap();
        use ContainerEventType as T;
        let expected = [
            (&pod.0, T::ContainerCreatedEvent),
            (&pod.0, T::ContainerStartedEvent),
            (&id, T::ContainerCreatedEvent),
            (&id, T::ContainerStartedEvent),
            (&id, T::ContainerStoppedEvent),
            (&id, T::ContainerDeletedEvent),
        ];
        let mut seen = Vec::new();
        for _ in &expected {
            let event = events.message().await.unwrap().unwrap();
            if event.container_event_type() == T::ContainerStoppedEvent {
                assert_eq!(event.containers_statuses[0].exit_code, 4, "the event carries the pod's state");
                assert_eq!(event.pod_sandbox_status.as_ref().unwrap().id, pod.0);
            }
            seen.push((event.container_id.clone(), event.container_event_type()));
        }
        // A very short program may be seen ending before the call that started it returned.
        seen.sort_by_key(|(id, kind)| (*id != pod.0, *kind as i32));
        let expected: Vec<_> = expected.iter().map(|(id, kind)| ((*id).clone(), *kind)).collect();
        assert_eq!(seen, expected);
        drop(events);
        host.finish().await;
    });
}

fn logs_go_on_in_a_new_file() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let id = host.sh(&pod, "one", "echo first; while [ ! -e /go ]; do sleep 0.01; done; echo second").await;
        while host.log("one") != "first\n" {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        std::fs::rename(host.path("logs/one.log"), host.path("logs/old.log")).unwrap();
        host.cri.reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
        host.exec(&id, "touch /go").await.unwrap();
        host.ended(&id).await;
        assert_eq!((host.log("old").as_str(), host.log("one").as_str()), ("first\n", "second\n"));
        host.finish().await;
    });
}
