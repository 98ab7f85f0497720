//! `kubectl debug`: a container beside a running one, a copy of a pod, and a pod on the node.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::runner::Test;
use testkit::space::STAY;
use testkit::{Cluster, Running};

pub const TESTS: &[Test] =
    &[("an_ephemeral_container_joins_a_pod", ephemeral), ("a_copy_and_a_node_are_debugged", copies)];

const PATIENCE: Duration = Duration::from_secs(30);
const IMAGE: &str = "--image=docker.io/library/busybox:test";

fn ephemeral(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("debugging")?;
    space.shell_pod("app", STAY)?;
    let args = ["debug", "-it", "app", IMAGE, "--target=app", "--container=probe", "--profile=general", "--", "sh"];
    let mut shell = Running::on_terminal(&mut space.command(&args), 25, 80)?;
    shell.prompt(PATIENCE)?;
    // The network is the pod's, the processes are the target's.
    shell.send("hostname; ps | grep -c 'trap.*exit'; exit\r")?;
    shell.expect(PATIENCE, "app\r\n")?;
    shell.end(PATIENCE)?;
    let pod = space.wait_for("pod/app", PATIENCE, |p| {
        p["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    })?;
    ensure!(pod["spec"]["ephemeralContainers"][0]["name"] == "probe", "{:#}", pod["spec"]);
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{:#}", pod["status"]);
    let described = space.kubectl(&["describe", "pod", "app"])?;
    ensure!(described.contains("Ephemeral Containers:\n  probe:"), "{described}");
    Ok(())
}

fn copies(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("debug-copies")?;
    space.shell_pod("app", STAY)?;
    let args = [
        "debug",
        "app",
        "--copy-to=twin",
        IMAGE,
        "--share-processes",
        "--container=probe",
        "--attach=false",
        "--",
        "sleep",
        "1000",
    ];
    space.kubectl(&args)?;
    let twin = space.ready("twin")?;
    ensure!(twin["spec"]["shareProcessNamespace"] == true, "{:#}", twin["spec"]);
    ensure!(space.kubectl(&["exec", "twin", "-c", "probe", "--", "ps"])?.contains("trap 'exit 0' TERM"));
    let node = space.path("pod/app", "{.spec.nodeName}")?;
    let args =
        ["debug", &format!("node/{node}"), IMAGE, "-i", "--quiet", "--", "sh", "-c", "ls /host/proc/1/exe; hostname"];
    let seen = space.kubectl(&args)?;
    ensure!(seen.contains("/host/proc/1/exe"), "{seen}");
    Ok(())
}
