//! Workloads over time: scale, rollout status, history, undo, pause, resume and restart of the three kinds.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, Space};

pub const TESTS: &[Test] = &[
    ("a_deployment_rolls_out_and_back", deployment),
    ("a_paused_deployment_waits", pause),
    ("a_stuck_rollout_says_so", stuck),
    ("a_daemon_set_rolls_out_and_back", daemon_set),
    ("a_stateful_set_rolls_in_order", stateful_set),
    ("scale_checks_what_it_is_told_to", scale),
];

const PATIENCE: Duration = Duration::from_secs(30);

/// A workload of busybox pods that end at once, with `FIELDS` in its spec.
fn workload(kind: &str, fields: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n{fields}  \
         template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      containers:\n      - name: c\n        \
         image: docker.io/library/busybox:test\n        command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 0.1; done\"]\n        \
         env: [{{name: STEP, value: one}}]\n"
    )
}

fn rolled(space: &Space<'_>, what: &str) -> Result<String> {
    space.kubectl(&["rollout", "status", what, "--timeout=60s"])
}

/// The value of STEP in the pods that aren't on their way out.
fn steps(space: &Space<'_>) -> Result<Vec<String>> {
    let pods = space.get("pods")?["items"].as_array().cloned().unwrap_or_default();
    let alive = pods.iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null());
    Ok(alive.filter_map(|p| Some(p["spec"]["containers"][0]["env"][0]["value"].as_str()?.to_owned())).collect())
}

fn deployment(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("rollout")?;
    let what = "deployment/web";
    space.apply(&workload("Deployment", "  replicas: 2\n"))?;
    let said = rolled(&space, what)?;
    ensure!(said.ends_with("deployment \"web\" successfully rolled out\n"), "{said}");
    space.kubectl(&["set", "env", what, "STEP=two"])?;
    space.kubectl(&["annotate", what, "kubernetes.io/change-cause=second step"])?;
    rolled(&space, what)?;
    ensure!(steps(&space)? == ["two", "two"], "{:?}", steps(&space)?);
    let history = space.kubectl(&["rollout", "history", what])?;
    ensure!(history.contains("REVISION  CHANGE-CAUSE\n1         <none>\n2         second step\n"), "{history}");
    let first = space.kubectl(&["rollout", "history", what, "--revision=1"])?;
    ensure!(first.contains("deployment.apps/web with revision #1") && first.contains("STEP:\tone"), "{first}");
    ensure!(space.kubectl(&["rollout", "undo", what])? == "deployment.apps/web rolled back\n");
    rolled(&space, what)?;
    ensure!(steps(&space)? == ["one", "one"]);
    let history = space.kubectl(&["rollout", "history", what])?;
    ensure!(history.contains("2         second step\n3         <none>\n") && !history.contains("\n1 "), "{history}");
    space.kubectl(&["rollout", "undo", what, "--to-revision=2"])?;
    rolled(&space, what)?;
    ensure!(steps(&space)? == ["two", "two"]);
    let before = space.get("pods")?;
    ensure!(space.kubectl(&["rollout", "restart", what])? == "deployment.apps/web restarted\n");
    rolled(&space, what)?;
    ensure!(space.path(what, "{.spec.template.metadata.annotations}")?.contains("kubectl.kubernetes.io/restartedAt"));
    let old = before["items"].as_array().cloned().unwrap_or_default();
    space.wait_for("pods", PATIENCE, |pods| {
        let names = pods["items"].as_array().cloned().unwrap_or_default();
        names.len() == 2 && names.iter().all(|p| old.iter().all(|o| o["metadata"]["uid"] != p["metadata"]["uid"]))
    })?;
    Ok(())
}

fn pause(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("rollout-pause")?;
    let what = "deployment/web";
    space.apply(&workload("Deployment", "  replicas: 1\n"))?;
    rolled(&space, what)?;
    ensure!(space.kubectl(&["rollout", "pause", what])? == "deployment.apps/web paused\n");
    ensure!(space.refused(&["rollout", "pause", what])?.contains("is already paused"));
    space.kubectl(&["set", "env", what, "STEP=two"])?;
    space.wait_for(what, PATIENCE, |d| d["status"]["observedGeneration"] == d["metadata"]["generation"])?;
    ensure!(space.get("replicasets")?["items"].as_array().is_some_and(|s| s.len() == 1), "nothing rolls while paused");
    space.kubectl(&["scale", what, "--replicas=2"])?;
    space.wait_for(what, PATIENCE, |d| d["status"]["readyReplicas"] == 2)?;
    ensure!(space.kubectl(&["rollout", "resume", what])? == "deployment.apps/web resumed\n");
    rolled(&space, what)?;
    ensure!(steps(&space)? == ["two", "two"]);
    Ok(())
}

fn stuck(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("rollout-stuck")?;
    space.apply(&workload("Deployment", "  replicas: 1\n  progressDeadlineSeconds: 1\n"))?;
    space.wait_for("deployment/web", PATIENCE, |d| d["status"]["availableReplicas"] == 1)?;
    space.kubectl(&["patch", "deployment", "web", "-p", r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"localhost/none:1","imagePullPolicy":"Never"}]}}}}"#])?;
    let said = space.refused(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ensure!(said == "error: deployment \"web\" exceeded its progress deadline\n", "{said}");
    let pods = space.kubectl(&["get", "pods"])?;
    ensure!(pods.contains("ErrImageNeverPull") && pods.contains("Running"), "the old pod stays: {pods}");
    Ok(())
}

fn daemon_set(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("rollout-daemons")?;
    let what = "daemonset/web";
    space.apply(&workload("DaemonSet", ""))?;
    let said = rolled(&space, what)?;
    ensure!(said.ends_with("daemon set \"web\" successfully rolled out\n"), "{said}");
    space.kubectl(&["set", "env", what, "STEP=two"])?;
    rolled(&space, what)?;
    ensure!(steps(&space)? == ["two"]);
    let history = space.kubectl(&["rollout", "history", what])?;
    ensure!(history.contains("1         <none>\n2         <none>\n"), "{history}");
    let second = space.kubectl(&["rollout", "history", what, "--revision=2"])?;
    ensure!(second.contains("STEP:\ttwo"), "{second}");
    ensure!(space.kubectl(&["rollout", "undo", what])? == "daemonset.apps/web rolled back\n");
    rolled(&space, what)?;
    ensure!(steps(&space)? == ["one"]);
    ensure!(space.kubectl(&["rollout", "restart", what])? == "daemonset.apps/web restarted\n");
    rolled(&space, what)?;
    Ok(())
}

fn stateful_set(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("rollout-stateful")?;
    let what = "statefulset/web";
    space.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: None, selector: {app: web}}\n",
    )?;
    space.apply(&workload("StatefulSet", "  replicas: 2\n  serviceName: web\n"))?;
    rolled(&space, what)?;
    ensure!(space.kubectl(&["get", "pods", "-o", "name"])? == "pod/web-0\npod/web-1\n");
    let host = space.kubectl(&["exec", "web-1", "--", "cat", "/etc/hosts"])?;
    ensure!(host.contains("web-1.web.rollout-stateful.svc.cluster.local"), "{host}");
    space.kubectl(&["set", "env", what, "STEP=two"])?;
    let said = rolled(&space, what)?;
    ensure!(said.contains("partitioned roll out complete: 2 new pods have been updated..."), "{said}");
    ensure!(steps(&space)? == ["two", "two"]);
    space.kubectl(&["rollout", "undo", what])?;
    rolled(&space, what)?;
    ensure!(steps(&space)? == ["one", "one"]);
    ensure!(
        space
            .kubectl(&["rollout", "history", what])?
            .contains("REVISION  CHANGE-CAUSE\n2         <none>\n3         <none>\n")
    );
    space.kubectl(&["scale", what, "--replicas=1"])?;
    space.kubectl(&["wait", "--for=delete", "pod/web-1", "--timeout=30s"])?;
    ensure!(space.kubectl(&["get", "pods", "-o", "name"])? == "pod/web-0\n", "the last one goes first");
    Ok(())
}

fn scale(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("scaling")?;
    space.apply(&workload("Deployment", "  replicas: 0\n"))?;
    let set = space.refused(&["scale", "deployment/web", "--current-replicas=3", "--replicas=1"])?;
    ensure!(set.contains("Expected replicas to be 3, was 0"), "{set}");
    ensure!(
        space.kubectl(&["scale", "deployment/web", "--current-replicas=0", "--replicas=1"])?
            == "deployment.apps/web scaled\n"
    );
    rolled(&space, "deployment/web")?;
    ensure!(space.kubectl(&["scale", "deployment", "-l", "none=such", "--replicas=9"]).is_err());
    space.kubectl(&["scale", "--replicas=0", "deployment/web"])?;
    space.kubectl(&["wait", "--for=delete", "pod", "-l", "app=web", "--timeout=30s"])?;
    Ok(())
}
