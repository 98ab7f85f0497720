//! A cluster's life: up, up again, status, down and up with everything still there.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, binary, eventually};

pub const BEFORE: &[Test] = &[("up_starts_a_ready_cluster", up)];
pub const TESTS: &[Test] = &[
    ("up_again_says_that_it_runs", up_again),
    ("status_names_every_process", status),
    ("secrets_are_private", private),
    ("the_demo_answers_on_its_url", demo),
];
pub const AFTER: &[Test] = &[("down_and_up_keep_everything", down_and_up)];

fn up(cluster: &Cluster) -> Result<()> {
    let said = cluster.up()?;
    // Nothing between the two: what `up` promises holds when it returns.
    cluster.kubectl(&["run", "first", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    ensure!(said.contains("kubectl get nodes"), "{said}");
    let steps: Vec<&str> = said.lines().filter(|l| l.contains('✓')).collect();
    ensure!(steps.len() == 10, "one step for the certificates and one for each component: {said}");
    for component in ["kube-controller-manager", "kube-scheduler", "kube-proxy", "Cluster DNS answers", "Ready"] {
        let step = steps.iter().find(|s| s.contains(component));
        ensure!(step.is_some_and(|s| !s.ends_with("  0 ms")), "{component} takes a while to do its work: {said}");
    }
    let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"])?;
    ensure!(nodes.contains(" Ready ") && nodes.contains("v1.37"), "{nodes}");
    cluster.import_busybox(BUSYBOX)?;
    // Its image came after it: the only thing that may have been wanting.
    let wrong = warnings(cluster, "first")?;
    ensure!(wrong.iter().all(|reason| reason == "Failed" || reason == "BackOff"), "{wrong:?}");
    cluster.kubectl(&["delete", "pod", "first", "--now"])?;
    Ok(())
}

/// Reasons of the warnings about a pod.
fn warnings(cluster: &Cluster, pod: &str) -> Result<Vec<String>> {
    let selector = format!("involvedObject.name={pod},type!=Normal");
    let events = cluster.get(&format!("events --field-selector {selector}"))?;
    let events = events["items"].as_array().cloned().unwrap_or_default();
    Ok(events.iter().map(|e| e["reason"].as_str().unwrap_or_default().to_owned()).collect())
}

fn up_again(cluster: &Cluster) -> Result<()> {
    let daemon = cluster.pids("daemon")?;
    let said = cluster.up()?;
    ensure!(said.contains("runs already"), "{said}");
    ensure!(cluster.pids("daemon")? == daemon);
    Ok(())
}

fn status(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["run", "watched", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    cluster.ready("watched")?;
    let status = cluster.status()?;
    ensure!(status["state"] == "running" && status["name"] == cluster.name.as_str(), "{status:#}");
    for (role, count) in [("daemon", 1), ("monitor", 1)] {
        let pids = cluster.pids(role)?;
        let programs = pids.iter().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")));
        let programs = programs.collect::<std::io::Result<Vec<_>>>()?;
        ensure!(programs.len() == count && programs.iter().all(|p| p.starts_with("ferrokube")), "{status:#}");
    }
    let table = cluster.run(&["status"])?.ok()?;
    ensure!(table.contains("running") && table.contains("daemon") && table.contains("monitor"), "{table}");
    cluster.kubectl(&["delete", "pod", "watched", "--now"])?;
    Ok(())
}

fn private(cluster: &Cluster) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path| -> Result<u32> { Ok(std::fs::metadata(path)?.permissions().mode() & 0o777) };
    ensure!(mode(&cluster.data_dir())? == 0o700);
    ensure!(mode(&cluster.kubeconfig())? == 0o600);
    ensure!(mode(&cluster.home().join(".kube/config"))? == 0o600);
    for entry in std::fs::read_dir(cluster.data_dir().join("pki"))?.flatten().filter(|e| e.path().is_file()) {
        ensure!(mode(&entry.path())? == 0o600, "{}", entry.path().display());
    }
    Ok(())
}

fn demo(cluster: &Cluster) -> Result<()> {
    // The image is made of the binary: without what a debugger wants it is a third.
    let small = cluster.dir.join("ferrokube");
    let strip = ["-s".as_ref(), binary().as_os_str(), "-o".as_ref(), small.as_os_str()].map(std::ffi::OsString::from);
    testkit::output(std::process::Command::new("strip").args(strip), "")?.ok()?;
    let up = || {
        let mut command = std::process::Command::new(&small);
        let with_flags = cluster.command(&["up", "--demo"]);
        testkit::output(command.args(with_flags.get_args()).env("HOME", cluster.home()).env_remove("KUBECONFIG"), "")?
            .ok()
    };
    let said = up()?;
    let url = said.split_whitespace().find(|word| word.starts_with("http://")).unwrap_or_default();
    let port = url.rsplit(':').next().and_then(|p| p.parse::<u16>().ok()).unwrap_or_default();
    ensure!((30000..=32767).contains(&port), "a node port: {said}");
    let page = testkit::output(std::process::Command::new("curl").args(["-sS", "--max-time", "5", url]), "")?.ok()?;
    ensure!(page.contains("Hello from Ferrokube"), "{page}");
    let pod = cluster.kubectl(&["get", "pod", "-l", "app=demo", "-o", "jsonpath={.items[0].metadata.name}"])?;
    ensure!(page.contains(&pod), "the pod {pod} answers: {page}");
    // Again, and it is content.
    up()?;
    cluster.kubectl(&["delete", "deployment/demo", "service/demo", "--cascade=foreground"])?;
    cluster.run(&["image", "rm", "ferrokube.local/demo:latest"])?.ok()?;
    Ok(())
}

fn down_and_up(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"])?;
    let deaf = "trap '' TERM; while true; do sleep 1; done";
    cluster.kubectl(&["run", "deaf", "--image", BUSYBOX, "--", "sh", "-c", deaf])?;
    cluster.ready("deaf")?;
    let began = Instant::now();
    cluster.run(&["down"])?.ok()?;
    ensure!(began.elapsed() < Duration::from_secs(10), "down took {:?}", began.elapsed());
    ensure!(cluster.pids("monitor")?.is_empty() && cluster.pids("daemon")?.is_empty(), "{:#}", cluster.status()?);
    ensure!(cluster.status()?["state"] == "stopped");
    let again = cluster.run(&["down"])?.ok()?;
    ensure!(again.contains("is down"), "{again}");
    cluster.up()?;
    cluster.kubectl(&["run", "prompt", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    ensure!(cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])? == "b");
    cluster.ready("prompt")?;
    ensure!(warnings(cluster, "prompt")?.is_empty(), "a pod right after `up` starts without a retry");
    let pod = cluster.ready("deaf")?;
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 1, "{pod:#}");
    cluster.kubectl(&["delete", "pod/deaf", "pod/prompt", "configmap/kept", "--now"])?;
    eventually(Duration::from_secs(10), || {
        ensure!(cluster.pids("monitor")?.is_empty(), "{:#}", cluster.status()?);
        Ok(())
    })
}
