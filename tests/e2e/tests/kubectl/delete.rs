//! Deletion: cascades, waiting, grace, selections, force, and `wait --for=delete`.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, Running, Space};

pub const TESTS: &[Test] = &[
    ("delete_cascades_as_told", cascade),
    ("delete_selects_by_label_name_and_all", selection),
    ("grace_now_and_force_end_a_stubborn_pod", grace),
    ("a_finalizer_holds_a_deletion_until_it_goes", finalizer),
];

const PATIENCE: Duration = Duration::from_secs(20);

fn workload(space: &Space<'_>) -> Result<()> {
    let image = format!("--image={}", testkit::image::BUSYBOX);
    space.kubectl(&[
        "create",
        "deployment",
        "web",
        &image,
        "--",
        "sh",
        "-c",
        "trap exit TERM; while :; do sleep 0.2; done",
    ])?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    Ok(())
}

fn names(space: &Space<'_>, kinds: &str) -> Result<String> {
    space.kubectl(&["get", kinds, "-o", "name"])
}

fn cascade(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("cascade")?;
    workload(&space)?;
    space.kubectl(&["delete", "deployment", "web", "--cascade=orphan"])?;
    let left = names(&space, "replicasets,pods")?;
    ensure!(left.contains("replicaset.apps/web-") && left.contains("pod/web-"), "{left}");
    ensure!(space.get("replicasets")?["items"][0]["metadata"]["ownerReferences"].is_null(), "orphans have no owner");
    let set = left.lines().next().unwrap_or_default().to_owned();
    space.kubectl(&["delete", &set, "--cascade=foreground"])?;
    ensure!(names(&space, "replicasets,pods")?.is_empty(), "in the foreground dependents go first");
    workload(&space)?;
    space.kubectl(&["delete", "deployment", "web", "--cascade=background"])?;
    ensure!(!names(&space, "deployments")?.contains("web"));
    space.kubectl(&["wait", "--for=delete", "pod", "-l", "app=web", "--timeout=30s"])?;
    Ok(())
}

fn selection(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("selection")?;
    for (name, label) in [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")] {
        space.kubectl(&["create", "configmap", name])?;
        space.kubectl(&["label", "configmap", name, &format!("set={label}")])?;
    }
    let said = space.kubectl(&["delete", "configmap", "a", "--dry-run=server"])?;
    ensure!(said.starts_with("configmap \"a\" deleted") && said.contains("(server dry run)"), "{said}");
    let said = space.kubectl(&["delete", "configmap", "-l", "set=x"])?;
    ensure!(said.contains("configmap \"a\" deleted") && said.contains("configmap \"b\" deleted"), "{said}");
    ensure!(space.refused(&["delete", "configmap", "a"])?.contains("configmaps \"a\" not found"));
    space.kubectl(&["delete", "configmap", "a", "--ignore-not-found"])?;
    space.kubectl(&["delete", "configmap", "--field-selector=metadata.name=c"])?;
    ensure!(names(&space, "configmaps")? == "configmap/d\nconfigmap/kube-root-ca.crt\n");
    space.kubectl(&["delete", "configmap", "--all"])?;
    ensure!(!names(&space, "configmaps")?.contains("/d"));
    Ok(())
}

fn grace(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("grace")?;
    let image = format!("--image={}", testkit::image::BUSYBOX);
    for name in ["slow", "now", "forced"] {
        // Deaf to SIGTERM: only the end of the grace period ends it.
        space.kubectl(&["run", name, &image, "--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"])?;
    }
    for name in ["slow", "now", "forced"] {
        space.ready(name)?;
    }
    space.kubectl(&["delete", "pod", "slow", "--grace-period=60", "--wait=false"])?;
    let dying = space.get("pod/slow")?;
    ensure!(dying["metadata"]["deletionGracePeriodSeconds"] == 60, "{:#}", dying["metadata"]);
    ensure!(space.kubectl(&["get", "pod", "slow"])?.contains("Terminating"));
    space.kubectl(&["delete", "pod", "slow", "now", "--now"])?;
    let said = space.kubectl_with(&["delete", "pod", "forced", "--force", "--grace-period=0"], "")?;
    ensure!(said.stderr.contains("Warning: Immediate deletion does not wait for confirmation"), "{said:?}");
    ensure!(said.stdout.contains("pod \"forced\" force deleted"), "{said:?}");
    ensure!(names(&space, "pods")?.is_empty());
    Ok(())
}

fn finalizer(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("finalizer")?;
    space.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: held, finalizers: [example.com/hold]}\n")?;
    let mut delete = Running::start(&mut space.command(&["delete", "configmap", "held"]))?;
    delete.expect(PATIENCE, "configmap \"held\" deleted")?;
    let mut wait =
        Running::start(&mut space.command(&["wait", "--for=delete", "configmap/held", "--timeout=30s", "-v=6"]))?;
    wait.expect(PATIENCE, "watch=true")?;
    let held = space.get("configmap/held")?;
    ensure!(held["metadata"]["deletionTimestamp"].is_string(), "{held:#}");
    space.kubectl(&[
        "patch",
        "configmap",
        "held",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/metadata/finalizers"}]"#,
    ])?;
    ensure!(delete.end(PATIENCE)?.0 == 0);
    let (code, said) = wait.end(PATIENCE)?;
    ensure!(code == 0 && said.contains("configmap/held condition met"), "{said}");
    Ok(())
}
