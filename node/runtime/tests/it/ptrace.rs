//! What a container with CAP_SYS_PTRACE sees of our own processes while they enter its PID namespace: nothing.
//!
//! A container looks at every process in its /proc as fast as a shell can, while programs and containers are started
//! beside it. A process that still has a root, a directory, a file or a right of the host is a way out (CVE-2016-9962).

use wire::cri::*;

use crate::Test;
use crate::host::{Host, namespaces, security, shell, with_host};

pub const TESTS: &[Test] = &[
    ("ptrace::an_exec_shows_nothing_of_the_host", an_exec_shows_nothing_of_the_host),
    ("ptrace::a_start_in_a_shared_pid_namespace_shows_nothing", a_start_in_a_shared_pid_namespace_shows_nothing),
    ("ptrace::a_start_beside_a_target_shows_nothing", a_start_beside_a_target_shows_nothing),
    ("ptrace::joined_processes_see_their_own_proc", joined_processes_see_their_own_proc),
    ("ptrace::a_filter_that_forbids_forks_costs_no_rights", a_filter_that_forbids_forks_costs_no_rights),
];

/// Shell built-ins only, so that the scanner makes no processes itself. It ends at the first find, or when told to.
fn scanner(marker: &str) -> String {
    format!(
        r#"m={marker}; n=0
while read k v; do [ "$k" = CapPrm: ] && mine=$v; done </proc/$$/status
hit() {{ echo "hit $*"; exit 1; }}
echo ready
while [ ! -e /tmp/stop ]; do
  n=$((n+1))
  for p in /proc/[0-9]*; do
    case $p in /proc/1|/proc/$$) continue;; esac
    [ -e $p/root$m ] && hit root $p
    [ -e $p/cwd$m ] && hit cwd $p
    for f in $p/fd/*; do
      if [ -d $f ] || [ -f $f ]; then hit fd $f; fi
    done
    [ $p/exe -ef /bin/busybox ] || {{ echo -n >>$p/exe && hit exe $p; }} 2>/dev/null
    while read k v; do [ "$k" = CapPrm: ] && [ "$v" != $mine ] && hit caps $p $v; done 2>/dev/null <$p/status
  done
done
echo scans $n"#
    )
}

/// A container with CAP_SYS_PTRACE.
fn tracer(name: &str, script: &str, namespaces: NamespaceOption) -> ContainerConfig {
    let mut config = shell(name, script);
    let s = security(&mut config);
    s.namespace_options = Some(namespaces);
    s.capabilities = Some(Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..Default::default() });
    config
}

/// Whether another such container could be started beside the scanner.
async fn start_tracer(host: &mut Host, pod: &(String, PodSandboxConfig), round: u64, options: NamespaceOption) -> bool {
    let id = host.create(pod, tracer(&format!("c{round}"), "true", options)).await.unwrap();
    host.start_container(&id).await.is_ok()
}

/// A running scanner in the pod; the marker is a file that only the host has.
async fn scan(host: &mut Host, pod: &(String, PodSandboxConfig), pids: NamespaceMode) -> String {
    let marker = host.path("marker");
    std::fs::write(&marker, "host").unwrap();
    let config = tracer("scanner", &scanner(&marker.display().to_string()), namespaces(pids));
    let id = host.run(pod, config).await;
    while !host.log("scanner").contains("ready") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    id
}

async fn expect_no_hit(host: &mut Host, scanner: &str, rounds: u64) {
    // Opens no file, which the scanner would find.
    let _ = host.exec(scanner, "mkdir /tmp/stop").await;
    host.ended(scanner).await;
    let log = host.log("scanner");
    assert!(!log.contains("hit"), "{log}");
    let scans: u64 = log.lines().find_map(|l| l.strip_prefix("scans ")).unwrap().parse().unwrap();
    assert!(scans > rounds, "it looked at every start: {scans} scans");
}

fn an_exec_shows_nothing_of_the_host() {
    const ROUNDS: u64 = 150;
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let scanner = scan(&mut host, &pod, NamespaceMode::Container).await;
        for _ in 0..ROUNDS {
            if host.exec(&scanner, "true").await.is_err() {
                break;
            }
        }
        expect_no_hit(&mut host, &scanner, ROUNDS).await;
        host.finish().await;
    });
}

fn a_start_in_a_shared_pid_namespace_shows_nothing() {
    const ROUNDS: u64 = 40;
    with_host(|mut host| async move {
        let shared = |c: &mut PodSandboxConfig| {
            let security = c.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            security.namespace_options = Some(namespaces(NamespaceMode::Pod));
        };
        let pod = host.pod(shared).await;
        let scanner = scan(&mut host, &pod, NamespaceMode::Pod).await;
        for round in 0..ROUNDS {
            if !start_tracer(&mut host, &pod, round, namespaces(NamespaceMode::Pod)).await {
                break;
            }
        }
        expect_no_hit(&mut host, &scanner, ROUNDS).await;
        host.finish().await;
    });
}

fn a_start_beside_a_target_shows_nothing() {
    const ROUNDS: u64 = 40;
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let scanner = scan(&mut host, &pod, NamespaceMode::Container).await;
        for round in 0..ROUNDS {
            let mut options = namespaces(NamespaceMode::Target);
            options.target_id = scanner.clone();
            // Without the scanner, which ends at a find, there is no namespace to join.
            if !start_tracer(&mut host, &pod, round, options).await {
                break;
            }
        }
        expect_no_hit(&mut host, &scanner, ROUNDS).await;
        host.finish().await;
    });
}

/// The /proc of a joined namespace is that namespace's, with its own masks.
fn joined_processes_see_their_own_proc() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let first = host.sh(&pod, "first", "sleep 1234").await;
        let mut config = shell(
            "second",
            "cat /proc/1/cmdline | tr '\\0' ' '; echo; readlink /proc/self; echo $$; wc -c </proc/version",
        );
        let s = security(&mut config);
        let mut options = namespaces(NamespaceMode::Target);
        options.target_id = first.clone();
        s.namespace_options = Some(options);
        s.masked_paths = vec!["/proc/version".into()];
        let (text, code) = host.output(&pod, config).await;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("sleep 1234"), "{text}");
        assert!(lines[1].parse::<u32>().is_ok() && lines[2].parse::<u32>().is_ok(), "{text}");
        assert_eq!((lines[3], code), ("0", 0), "masked here, though not in the target: {text}");
        let (out, ..) = host.exec(&first, "wc -c </proc/version").await.unwrap();
        assert_ne!(out.trim(), "0", "the target's /proc is as it was");
        host.finish().await;
    });
}

/// The fork that joins comes last, when no right to load a filter is left: such a filter is loaded after it all the
/// same, and programs gain nothing by it.
fn a_filter_that_forbids_forks_costs_no_rights() {
    with_host(|mut host| async move {
        let profile = host.path("no-forks.json");
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["clone","clone3","fork","vfork"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
        std::fs::write(&profile, text).unwrap();
        let pod = host.pod(|_| {}).await;
        let mut config = shell("alone", "");
        config.command = vec!["sleep".into(), "1000".into()];
        let wanted = SecurityProfile { localhost_ref: profile.display().to_string(), profile_type: 2 };
        security(&mut config).seccomp = Some(wanted);
        let id = host.run(&pod, config).await;
        let cmd = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let request =
            ExecSyncRequest { container_id: id.clone(), cmd: cmd(&["cat", "/proc/self/status"]), timeout: 10 };
        let out = host.cri.exec_sync(request).await.unwrap().into_inner().stdout;
        let status = String::from_utf8_lossy(&out).replace('\t', " ");
        for line in ["NoNewPrivs: 1", "Seccomp: 2", "CapPrm: 00000000a80425fb"] {
            assert!(status.contains(line), "{line}: {status}");
        }
        let (_, err, code) = host.exec(&id, "true | true").await.unwrap();
        assert!(code != 0 && err.contains("fork"), "the filter is in force: {err}");
        host.finish().await;
    });
}
