//! The store holds objects that nobody can read, of every kind: whatever reads these kinds goes on, starts again, and
//! says what it left out, without a body in the log.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::Cluster;
use testkit::image::BUSYBOX;
use testkit::runner::Test;

pub const TESTS: &[Test] = &[
    ("objects_that_can_not_be_read_stop_nobody", unreadable),
    ("a_cluster_whose_own_objects_can_not_be_read_starts_and_is_mended", own_objects),
];

/// The delete option that removes what can't be read.
const OPTION: &str = r#"{"ignoreStoreReadErrorWithClusterBreakingPotential":true}"#;

/// What no log may show.
const SECRET: &str = "hunter2";

/// One of each of the controllers whose pods tell that everything on the way to them works.
const WORKLOADS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: NAME-d, namespace: NAME}
spec:
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: docker.io/library/busybox:test, command: [sleep, "100000"]}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: NAME-s, namespace: NAME}
spec:
  selector: {matchLabels: {app: s}}
  template:
    metadata: {labels: {app: s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: docker.io/library/busybox:test, command: [sleep, "100000"]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME-p, namespace: NAME}
spec:
  selector: {matchLabels: {app: p}}
  template:
    metadata: {labels: {app: p}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: docker.io/library/busybox:test, command: [sleep, "100000"]}]
"#;

fn workloads(own: &Cluster, name: &str) -> Result<()> {
    own.kubectl(&["create", "namespace", name])?;
    own.apply(&WORKLOADS.replace("NAME", name))?;
    for (kind, field) in
        [("daemonset", "numberReady"), ("statefulset", "readyReplicas"), ("deployment", "readyReplicas")]
    {
        let what = format!("{kind}/{name}-{} -n {name}", if kind == "deployment" { "p" } else { &kind[..1] });
        own.wait_for(&what, Duration::from_secs(90), |object| object["status"][field] == 1)?;
    }
    Ok(())
}

/// Something unreadable beside everything that is stored.
fn break_every_kind(own: &Cluster) -> Result<usize> {
    let keys = own.etcdctl(&["get", "/registry/", "--prefix", "--keys-only"], "")?;
    let places: BTreeSet<&str> = keys.lines().filter_map(|key| Some(key.trim().rsplit_once('/')?.0)).collect();
    let deep = format!("{{\"metadata\":{{\"name\":\"deep\"}},\"data\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let typed = json!({"metadata": [], "data": {"password": [SECRET]}}).to_string();
    let torn = format!("{{\"metadata\":{{\"name\":\"torn\",\"annotations\":{{\"a\":\"{SECRET}");
    for place in &places {
        for (name, value) in [("deep", &deep), ("typed", &typed), ("torn", &torn)] {
            own.etcdctl(&["put", &format!("{place}/{name}")], value)?;
        }
    }
    Ok(places.len())
}

fn unreadable(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("corrupt")?;
    own.up()?;
    own.import_busybox(BUSYBOX)?;
    own.kubectl(&["create", "secret", "generic", "mine", &format!("--from-literal=password={SECRET}")])?;
    workloads(&own, "before")?;
    // As deep as an object may be: all that read revisions do.
    let mut data = json!("x");
    for _ in 0..114 {
        data = json!({ "a": data });
    }
    let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": data,
        "metadata": {"name": "deepest", "namespace": "before"}});
    own.apply(&revision.to_string())?;
    ensure!(break_every_kind(&own)? > 30, "the store holds more kinds than that");
    workloads(&own, "during")?;
    own.run(&["down"])?.ok()?;
    own.up()?;
    workloads(&own, "after")?;
    let list = own.kubectl_with(&["get", "secrets", "-A"], "")?;
    ensure!(list.stderr.contains("stored secrets can't be read and are left out"), "no warning: {}", list.stderr);
    let path = "/api/v1/namespaces/default/secrets/torn";
    let refused = own.kubectl_with(&["delete", "--raw", path], "")?.fails()?;
    ensure!(refused.contains("corrupt object"), "{refused}");
    own.kubectl_with(&["delete", "--raw", path, "-f", "-"], OPTION)?.ok()?;
    let log = std::fs::read_to_string(own.data_dir().join("daemon.log")).unwrap_or_else(|_| own.log_tail());
    ensure!(log.contains("a stored object can't be read and is left out"), "not told");
    ensure!(!log.contains(SECRET) && !log.contains("aHVudGVyMg"), "a body in the log");
    Ok(())
}

/// What a start waits for and what the cluster itself made, each unreadable: it starts, for else nobody could remove it.
fn own_objects(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("corrupt-own")?;
    own.up()?;
    own.import_busybox(BUSYBOX)?;
    let node = own.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let objects = [
        (format!("minions/{node}"), format!("/api/v1/nodes/{node}")),
        (
            format!("leases/kube-node-lease/{node}"),
            format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}"),
        ),
        ("serviceaccounts/default/default".into(), "/api/v1/namespaces/default/serviceaccounts/default".into()),
        ("configmaps/default/kube-root-ca.crt".into(), "/api/v1/namespaces/default/configmaps/kube-root-ca.crt".into()),
        ("services/specs/kube-system/kube-dns".into(), "/api/v1/namespaces/kube-system/services/kube-dns".into()),
        ("clusterroles/system:node".into(), "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node".into()),
    ];
    for (key, _) in &objects {
        own.etcdctl(&["put", &format!("/registry/{key}")], "{\"torn")?;
    }
    own.run(&["down"])?.ok()?;
    own.up()?;
    for (key, path) in &objects {
        own.kubectl_with(&["delete", "--raw", path, "-f", "-"], OPTION)?.ok().with_context(|| key.clone())?;
    }
    own.run(&["down"])?.ok()?;
    own.up()?;
    workloads(&own, "mended")
}
