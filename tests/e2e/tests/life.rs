//! A cluster's life: up, up again, status, down and up with everything still there, reset without a trace.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::Cluster;
use testkit::runner::Test;

pub const BEFORE: &[Test] = &[("up_starts_a_ready_cluster", up)];
pub const TESTS: &[Test] = &[
    ("up_again_says_that_it_runs", up_again),
    ("status_names_every_process", status),
    ("secrets_are_private", private),
];
pub const AFTER: &[Test] = &[("down_and_up_keep_everything", down_and_up)];

fn up(cluster: &Cluster) -> Result<()> {
    let said = cluster.up()?;
    ensure!(said.contains('✓') && said.contains("kubectl get nodes"), "{said}");
    let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"])?;
    ensure!(nodes.contains(" Ready ") && nodes.contains("v1.37"), "{nodes}");
    let user = std::fs::read_to_string(cluster.dir.join("home/.kube/config"))?;
    ensure!(user.contains(&cluster.name), "the context is in the user's kubeconfig: {user}");
    cluster.import_busybox("docker.io/library/busybox:test")
}

fn up_again(cluster: &Cluster) -> Result<()> {
    let said = cluster.up()?;
    ensure!(said.contains("runs already"), "{said}");
    Ok(())
}

fn status(cluster: &Cluster) -> Result<()> {
    ensure!(cluster.pids("daemon")?.len() == 1, "{:#}", cluster.status()?);
    let table = cluster.run(&["status"])?.ok()?;
    ensure!(table.contains("running") && table.contains("daemon"), "{table}");
    Ok(())
}

fn private(cluster: &Cluster) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path| -> Result<u32> { Ok(std::fs::metadata(path)?.permissions().mode() & 0o777) };
    ensure!(mode(&cluster.data_dir())? == 0o700);
    ensure!(mode(&cluster.kubeconfig())? == 0o600);
    for entry in std::fs::read_dir(cluster.data_dir().join("pki"))?.flatten().filter(|e| e.path().is_file()) {
        ensure!(mode(&entry.path())? == 0o600, "{}", entry.path().display());
    }
    Ok(())
}

fn down_and_up(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"])?;
    cluster.kubectl(&["run", "stays", "--image=docker.io/library/busybox:test", "--", "sleep", "1000"])?;
    cluster.ready("stays")?;
    let began = Instant::now();
    cluster.run(&["down"])?.ok()?;
    ensure!(began.elapsed() < Duration::from_secs(15), "down took {:?}", began.elapsed());
    ensure!(cluster.pids("monitor")?.is_empty() && cluster.pids("daemon")?.is_empty(), "{:#}", cluster.status()?);
    cluster.up()?;
    ensure!(cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])? == "b");
    cluster.ready("stays")?;
    cluster.kubectl(&["delete", "pod/stays", "configmap/kept", "--now"])?;
    Ok(())
}
