//! Volumes of running pods: what they show when objects change, and what a pod may keep in them.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, eventually};

pub const TESTS: &[Test] =
    &[("volumes_end_with_the_newest_objects", newest), ("a_pod_over_its_storage_limits_is_evicted", over_the_limit)];

/// ConfigMaps that a pod shows, all of them optional.
const MAPS: [&str; 3] = ["one", "two", "three"];

fn newest(cluster: &Cluster) -> Result<()> {
    let part = |text: &dyn Fn(&str) -> String| MAPS.map(text).join(", ");
    let volumes = part(&|map| format!("{{name: {map}, configMap: {{name: newest-{map}, optional: true}}}}"));
    let mounts = part(&|map| format!("{{name: {map}, mountPath: /maps/{map}}}"));
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: newest}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         volumes: [{volumes}]\n  containers: [{{name: a, image: \"{BUSYBOX}\", command: [sleep, \"1000\"], \
         volumeMounts: [{mounts}]}}]\n"
    ))?;
    cluster.ready("newest")?;
    // Each round changes all of them within milliseconds: refreshes that overtake each other would show.
    for round in 0..8 {
        let map = |map: &str| {
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: newest-{map}}}\ndata: {{text: \"{round}\"}}\n")
        };
        cluster.apply(&MAPS.map(map).join("---\n"))?;
        eventually(Duration::from_secs(10), || {
            let show = "cat /maps/one/text /maps/two/text /maps/three/text";
            let shown = cluster.kubectl_with(&["exec", "newest", "--", "sh", "-c", show], "")?.stdout;
            ensure!(shown == round.to_string().repeat(MAPS.len()), "round {round} shows {shown:?}");
            Ok(())
        })?;
    }
    cluster.kubectl(&[
        "delete",
        "pod/newest",
        "configmap/newest-one",
        "configmap/newest-two",
        "configmap/newest-three",
    ])?;
    Ok(())
}

fn over_the_limit(cluster: &Cluster) -> Result<()> {
    let pod = |name: &str, limits: &str, volume: &str, file: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
             volumes: [{{name: v, emptyDir: {{{volume}}}}}]\n  containers:\n  - name: a\n    image: \"{BUSYBOX}\"\n    \
             command: [sh, -c, \"dd if=/dev/urandom of={file} bs=1024 count=200; sleep 1000\"]\n    \
             resources: {{limits: {{{limits}}}}}\n    volumeMounts: [{{name: v, mountPath: /v}}]\n"
        )
    };
    cluster.apply(&pod("full-volume", "", "sizeLimit: 100Ki", "/v/file"))?;
    cluster.apply(&pod("full-root", "ephemeral-storage: 100Ki", "", "/file"))?;
    cluster.apply(&pod("within", "ephemeral-storage: 1Mi", "sizeLimit: 1Mi", "/v/file"))?;
    for (name, why) in [
        ("full-volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"100Ki\". "),
        ("full-root", "Pod ephemeral local storage usage exceeds the total limit of containers 100Ki. "),
    ] {
        let evicted = |pod: &serde_json::Value| pod["status"]["phase"] == "Failed";
        let pod = cluster.wait_for(&format!("pod/{name}"), Duration::from_secs(40), evicted)?;
        let told = (&pod["status"]["reason"], &pod["status"]["message"]);
        ensure!(told.0 == "Evicted" && told.1 == why, "{:#}", pod["status"]);
    }
    ensure!(cluster.get("pod/within")?["status"]["phase"] == "Running");
    cluster.kubectl(&["delete", "pod/full-volume", "pod/full-root", "pod/within", "--now"])?;
    Ok(())
}
