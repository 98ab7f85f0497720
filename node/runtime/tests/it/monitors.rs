//! What outlives the daemon, and what happens when it doesn't.

use std::time::Duration;

use wire::cri::*;

use crate::Test;
use crate::host::{Host, shell, with_host};

pub const TESTS: &[Test] = &[
    ("monitors::containers_live_on_without_the_daemon", containers_live_on_without_the_daemon),
    ("monitors::they_are_out_of_the_reach_of_whoever_ends_the_daemons_group", out_of_reach),
    ("monitors::a_killed_monitor_fails_its_container", a_killed_monitor_fails_its_container),
    ("monitors::an_end_while_the_daemon_is_away_is_known", an_end_while_the_daemon_is_away_is_known),
    ("monitors::what_a_container_said_last_is_there_when_its_end_is_known", what_was_said_last_is_there),
    ("monitors::a_monitor_is_small", a_monitor_is_small),
    ("monitors::half_made_things_are_removed_at_start", half_made_things_are_removed_at_start),
];

fn pid_of(host: &Host, id: &str, file: &str) -> i32 {
    let text = std::fs::read_to_string(host.path(&format!("run/containers/{id}/{file}"))).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

/// Termination messages are read from logs at the moment an end is told.
fn what_was_said_last_is_there() {
    with_host(|mut host| async move {
        let many = 24;
        let pod = host.pod(|_| {}).await;
        let mut events = host.cri.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
        let mut ids = std::collections::HashMap::new();
        for at in 0..many {
            let config = shell(&format!("c{at}"), "printf DONE; exit 1");
            let id = host.create(&pod, config).await.unwrap();
            ids.insert(id, format!("c{at}"));
        }
        let starts = ids.keys().cloned().map(|id| {
            let mut cri = host.cri.clone();
            async move { cri.start_container(StartContainerRequest { container_id: id }).await.unwrap() }
        });
        let started = futures::future::join_all(starts);
        let all_told = async {
            let mut told = std::collections::HashSet::new();
            let mut empty = Vec::new();
            while told.len() < many {
                let event = events.message().await.unwrap().unwrap();
                for status in event.containers_statuses {
                    let over = status.state() == ContainerState::ContainerExited;
                    if over && told.insert(status.id.clone()) {
                        let name = &ids[&status.id];
                        if host.log(name) != "DONE\n" || status.exit_code != 1 {
                            empty.push((name.clone(), host.log(name), status.exit_code, status.message));
                        }
                    }
                }
            }
            empty
        };
        let (_, empty) = tokio::join!(started, all_told);
        assert!(empty.is_empty(), "{empty:?}");
        host.finish().await;
    });
}

fn containers_live_on_without_the_daemon() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let id = host.sh(&pod, "one", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.02; done").await;
        let pid = pid_of(&host, &id, "pid");
        let before =
            host.cri.pod_sandbox_status(PodSandboxStatusRequest { pod_sandbox_id: pod.0.clone(), verbose: false });
        let before = before.await.unwrap().into_inner().status.unwrap();
        let mut host = host.restart().await;
        assert_eq!(pid_of(&host, &id, "pid"), pid);
        assert_eq!(host.status(&id).await.state(), ContainerState::ContainerRunning);
        let count = host.log("one").lines().count();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(host.log("one").lines().count() > count, "the log goes on");
        assert_eq!(host.exec(&id, "echo still here").await.unwrap().0, "still here\n");
        let after =
            host.cri.pod_sandbox_status(PodSandboxStatusRequest { pod_sandbox_id: pod.0.clone(), verbose: false });
        assert_eq!(after.await.unwrap().into_inner().status.unwrap(), before);
        let again = host.create(&pod, shell("one", "")).await.unwrap_err();
        assert_eq!(again.code(), tonic::Code::AlreadyExists, "names are remembered");
        host.cri.stop_container(StopContainerRequest { container_id: id.clone(), timeout: 0 }).await.unwrap();
        assert_eq!(host.status(&id).await.exit_code, 137);
        host.finish().await;
    });
}

/// A unit's stop sends TERM and then KILL to all that is in its group; a terminal's end sends HUP.
fn out_of_reach() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let id = host.sh(&pod, "one", "trap 'echo told; exit 3' TERM; while true; do sleep 0.05; done").await;
        let monitor = pid_of(&host, &id, "monitor.pid");
        let groups = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let (its, ours) = (groups(&monitor.to_string()), groups("self"));
        for (its, ours) in its.lines().zip(ours.lines()) {
            // A hierarchy that isn't mounted has no group of anybody's.
            assert!(its.ends_with("/monitors") || its == ours && its.ends_with(":/"), "{its}");
        }
        assert!(its.contains("/monitors"), "{its}");
        for signal in [1, 2, 3, 15] {
            linux::process::kill(monitor, signal).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(alive(monitor));
        host.cri.stop_container(StopContainerRequest { container_id: id.clone(), timeout: 10 }).await.unwrap();
        assert_eq!(
            (host.status(&id).await.exit_code, host.log("one").as_str()),
            (3, "told\n"),
            "the program has its own"
        );
        host.finish().await;
    });
}

fn a_killed_monitor_fails_its_container() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let id = host.sh(&pod, "one", "sleep 1000 & sleep 1001").await;
        let (monitor, pid) = (pid_of(&host, &id, "monitor.pid"), pid_of(&host, &id, "pid"));
        linux::process::kill(monitor, 9).unwrap();
        let status = host.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        assert!(status.message.contains("monitor"), "{}", status.message);
        for _ in 0..200 {
            if !alive(pid) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!alive(pid), "the container dies with its monitor");
        host.finish().await;
    });
}

fn an_end_while_the_daemon_is_away_is_known() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut config = shell("ends", "while [ ! -e /v/go ]; do sleep 0.01; done; exit 5");
        config.mounts = vec![Mount {
            container_path: "/v".into(),
            host_path: host.path("v").display().to_string(),
            ..Default::default()
        }];
        let ends = host.run(&pod, config).await;
        let killed = host.sh(&pod, "killed", "sleep 1000").await;
        let monitor = pid_of(&host, &killed, "monitor.pid");
        let go = host.path("v/go");
        let exit = host.path(&format!("root/containers/{ends}/exit"));
        // While no daemon is there: one container ends, the monitor of another is killed.
        let host = host.restart_after(|| {
            std::fs::write(&go, "").unwrap();
            linux::process::kill(monitor, 9).unwrap();
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while !exit.exists() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut host = host.await;
        let status = host.status(&ends).await;
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 5));
        let status = host.status(&killed).await;
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));
        host.finish().await;
    });
}

fn a_monitor_is_small() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut private = Vec::new();
        for at in 0..4 {
            let id = host.sh(&pod, &format!("c{at}"), "echo x; sleep 1000").await;
            let monitor = pid_of(&host, &id, "monitor.pid");
            let text = std::fs::read_to_string(format!("/proc/{monitor}/smaps_rollup")).unwrap();
            let kib = |name: &str| -> u64 {
                let line = text.lines().find(|l| l.starts_with(name)).unwrap();
                line.split_whitespace().nth(1).unwrap().parse().unwrap()
            };
            println!(
                "monitor: private {} KiB, PSS {} KiB, RSS {} KiB",
                kib("Private_Dirty:") + kib("Private_Clean:"),
                kib("Pss:"),
                kib("Rss:")
            );
            private.push(kib("Private_Dirty:") + kib("Private_Clean:"));
        }
        assert!(private.iter().all(|kib| *kib < 1024), "{private:?}");
        host.finish().await;
    });
}

/// What another program keeps where it must not.
const NOT_OURS: [&str; 5] =
    ["containers/storage", "sandboxes/mine", "../run/pods/else", "../run/containers/else", "images/layers/mine"];

fn half_made_things_are_removed_at_start() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let keep = host.sh(&pod, "keep", "sleep 1000").await;
        let root = host.path("root");
        let broken = "b".repeat(64);
        let host = host.restart_after(|| {
            for rubbish in [format!("containers/{broken}"), format!("sandboxes/{broken}")] {
                std::fs::create_dir_all(root.join(&rubbish)).unwrap();
                std::fs::write(root.join(rubbish).join("record"), "\u{1}not a record").unwrap();
            }
            for name in NOT_OURS {
                std::fs::create_dir_all(root.join(name)).unwrap();
            }
            std::fs::create_dir_all(root.join("images/layers/999/x")).unwrap();
            std::fs::create_dir_all(root.join("images/ingest/7")).unwrap();
            std::fs::create_dir_all(root.join(format!("../run/pods/{broken}"))).unwrap();
        });
        let mut host = host.await;
        for gone in ["root/containers/", "root/sandboxes/", "run/pods/"] {
            assert!(!host.path(&format!("{gone}{broken}")).exists(), "{gone}");
        }
        assert!(!host.path("root/images/layers/999").exists());
        for name in NOT_OURS {
            let path = host.path("root").join(name);
            assert!(path.exists(), "{name} has no name of ours: somebody else's");
            std::fs::remove_dir(path).unwrap();
        }
        assert_eq!(host.status(&keep).await.state(), ContainerState::ContainerRunning);
        host.finish().await;
    });
}
