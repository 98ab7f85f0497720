//! Sandboxes and containers from creation to removal.

use std::time::Instant;

use wire::cri::*;

use crate::host::{shell, with_host};

pub const TESTS: &[(&str, fn())] = &[("lifecycle::a_container_runs_logs_and_ends", a_container_runs_logs_and_ends)];

fn a_container_runs_logs_and_ends() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let script = "echo hello; echo oops >&2; hostname; echo $FROM_IMAGE $$; printf tail; exit 3";
        let begin = Instant::now();
        let id = host.sh(&pod, "one", script).await;
        println!("create+start {:?}", begin.elapsed());
        let status = host.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
        assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at);
        let mut lines: Vec<String> = host.log("one").lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["hello", "oops", "pod-host", "tail", "yes 1"]);
        for at in 0..5 {
            let begin = Instant::now();
            let pod = host.pod(|_| {}).await;
            let made = begin.elapsed();
            let id = host.create(&pod, shell(&format!("t{at}"), "exit 0")).await.unwrap();
            let created = begin.elapsed();
            host.start_container(&id).await.unwrap();
            println!("sandbox {made:?} create {:?} start {:?}", created - made, begin.elapsed() - created);
        }
        host.finish().await;
    });
}
