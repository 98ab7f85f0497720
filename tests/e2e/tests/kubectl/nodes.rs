//! Nodes as an operator handles them: cordon, taint, drain with a disruption budget, uncordon.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, Running, Space};

pub const TESTS: &[Test] = &[
    ("a_cordoned_node_takes_no_pods", cordon),
    ("taints_keep_and_drive_pods_away", taint),
    ("drain_respects_a_disruption_budget", drain),
];

const PATIENCE: Duration = Duration::from_secs(30);

/// The node is everybody's: whatever a test does to it is undone.
struct Restored<'a>(&'a Cluster, String);

impl<'a> Restored<'a> {
    fn new(cluster: &'a Cluster) -> Result<Restored<'a>> {
        let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
        Ok(Restored(cluster, node))
    }
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let _ = self.0.kubectl(&["uncordon", &self.1]);
        let _ = self.0.kubectl(&["taint", "node", &self.1, "e2e-"]);
    }
}

fn unschedulable(space: &Space<'_>, pod: &str, why: &str) -> Result<()> {
    space.wait_for(&format!("pod/{pod}"), PATIENCE, |p| {
        let message = p["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        p["status"]["conditions"][0]["reason"] == "Unschedulable" && message.contains(why)
    })?;
    Ok(())
}

fn run(space: &Space<'_>, name: &str) -> Result<()> {
    let image = format!("--image={}", testkit::image::BUSYBOX);
    space.kubectl(&["run", name, &image, "--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"])?;
    Ok(())
}

fn cordon(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("cordon")?;
    let node = Restored::new(cluster)?;
    run(&space, "before")?;
    space.ready("before")?;
    ensure!(cluster.kubectl(&["cordon", &node.1])? == format!("node/{} cordoned\n", node.1));
    ensure!(cluster.kubectl(&["get", "nodes"])?.contains("Ready,SchedulingDisabled"));
    run(&space, "waits")?;
    unschedulable(&space, "waits", "0/1 nodes are available: 1 node(s) were unschedulable.")?;
    ensure!(cluster.kubectl(&["uncordon", &node.1])? == format!("node/{} uncordoned\n", node.1));
    space.ready("waits")?;
    space.ready("before")?;
    Ok(())
}

fn taint(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("taint")?;
    let node = Restored::new(cluster)?;
    run(&space, "stays")?;
    space.ready("stays")?;
    let said = cluster.kubectl(&["taint", "node", &node.1, "e2e=busy:NoSchedule"])?;
    ensure!(said == format!("node/{} tainted\n", node.1), "{said}");
    run(&space, "waits")?;
    unschedulable(&space, "waits", "1 node(s) had untolerated taint")?;
    let tolerates = r#"{"spec":{"tolerations":[{"key":"e2e","operator":"Exists"}]}}"#;
    let image = format!("--image={}", testkit::image::BUSYBOX);
    space.kubectl(&["run", "tolerates", &image, "--overrides", tolerates, "--command", "--", "sleep", "1000"])?;
    space.ready("tolerates")?;
    space.ready("stays")?;
    // NoExecute drives out what runs and doesn't tolerate it.
    cluster.kubectl(&["taint", "node", &node.1, "e2e=busy:NoExecute"])?;
    space.kubectl(&["wait", "--for=delete", "pod/stays", "--timeout=30s"])?;
    space.ready("tolerates")?;
    ensure!(cluster.kubectl(&["taint", "node", &node.1, "e2e-"])? == format!("node/{} untainted\n", node.1));
    space.ready("waits")?;
    space.kubectl(&["delete", "pod", "tolerates", "--now", "--wait=false"])?;
    Ok(())
}

const GUARDED: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: "docker.io/library/busybox:test", command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"]}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: Pod
metadata: {name: loose}
spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "docker.io/library/busybox:test", command: [sleep, "1000"]}]}
"#;

fn drain(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("drain")?;
    let node = Restored::new(cluster)?;
    space.apply(GUARDED)?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    space.ready("loose")?;
    space.wait_for("pdb/web", PATIENCE, |p| p["status"]["disruptionsAllowed"] == 1)?;
    // Only what these tests made: others may have left pods behind.
    let only = "--pod-selector=app=web";
    let said = cluster.kubectl_with(&["drain", &node.1, "--ignore-daemonsets", "--dry-run=server"], "")?;
    ensure!(
        said.stderr.contains("cannot delete Pods that declare no controller") && said.stderr.contains("drain/loose"),
        "{said:?}"
    );
    let mut drain = Running::start(&mut cluster.kubectl_command(&[
        "drain",
        &node.1,
        "--ignore-daemonsets",
        only,
        "--timeout=60s",
    ]))?;
    // One pod goes; the second is held by the budget, because its successor finds no node.
    drain.expect(PATIENCE, "error when evicting pods/\"web-")?;
    let said = drain.expect(PATIENCE, "Cannot evict pod as it would violate the pod's disruption budget.")?;
    ensure!(said.contains("(will retry after 5s)"), "{said}");
    space.wait_for("deployment/web", PATIENCE, |d| d["status"]["readyReplicas"] == 1)?;
    space.kubectl(&["delete", "pdb", "web"])?;
    let (code, said) = drain.end(PATIENCE)?;
    ensure!(code == 0 && said.ends_with(&format!("node/{} drained\n", node.1)), "{said}");
    space.ready("loose")?;
    cluster.kubectl(&["uncordon", &node.1])?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    Ok(())
}
