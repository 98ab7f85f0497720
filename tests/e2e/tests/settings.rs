//! What `up` can be told: by flag, by file, by folders in the data directory; and the commands that only look or pass on.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::image::{BUSYBOX, busybox_archive};
use testkit::runner::Test;
use testkit::{Cluster, output, tool};

const PATIENCE: Duration = Duration::from_secs(30);

pub const TESTS: &[Test] = &[
    ("a_running_cluster_says_what_differs_from_what_is_asked_for", differs),
    ("settings_reach_every_component_and_pods_reach_an_api_on_loopback", settings),
    ("commands_that_look_and_pass_on", look),
];

fn differs(cluster: &Cluster) -> Result<()> {
    for (args, told) in [
        (&["--api-port", "7999"][..], "--api-port"),
        (&["--kubelet-arg", "max-pods=7"], "--kubelet-arg as by default, not max-pods=7"),
    ] {
        let said = cluster.run(&[&["up"], args].concat())?;
        ensure!(said.code == 2 && said.stderr.contains(told) && said.stderr.lines().count() == 1, "{said:?}");
    }
    let unknown = cluster.another("unknown")?;
    let said = unknown.run(&["up", "--kubelet-arg", "max-pod=7"])?;
    ensure!(said.code == 2 && said.stderr.contains("did you mean '--max-pods'"), "{said:?}");
    ensure!(!unknown.data_dir().exists(), "nothing was made");
    Ok(())
}

fn settings(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("settings")?;
    // A person may fill the folders before the first start.
    let (images, apply) = (own.data_dir().join("images"), own.data_dir().join("apply"));
    fs::create_dir_all(&images)?;
    fs::create_dir_all(&apply)?;
    busybox_archive(&images.join("busybox.tar"), BUSYBOX)?;
    let object = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
    fs::write(apply.join("a.yaml"), "kind: [\n")?;
    fs::write(apply.join("b.yaml"), format!("{}---\n{}", object("one"), object("two")))?;
    let file = own.dir.join("config.yaml");
    fs::write(
        &file,
        "bindAddress: 127.0.0.1\nkubeApiserverArg: [event-ttl=2h]\nnodeTaint: ['a=b:PreferNoSchedule']\n",
    )?;
    let flags = ["--node-label", "zone=a", "--tls-san", "api.example", "--kubelet-arg", "max-pods=20"];
    own.run(&[&["up", "--config", &file.display().to_string()], &flags[..]].concat())?.ok()?;
    let node = own.get("nodes")?["items"][0].take();
    let labels = &node["metadata"]["labels"];
    ensure!(labels["node-role.kubernetes.io/control-plane"] == "" && labels["zone"] == "a", "{labels}");
    ensure!(node["status"]["capacity"]["pods"] == "20", "{}", node["status"]["capacity"]);
    let taints = &node["spec"]["taints"];
    ensure!(taints[0]["key"] == "a" && taints.as_array().is_some_and(|all| all.len() == 1), "{taints}");
    // The image was there before the kubelet was; the API is, for pods, and not for others.
    own.kubectl(&["run", "a", "--image", BUSYBOX, "--image-pull-policy=Never", "--", "sleep", "1000"])?;
    own.ready("a")?;
    own.kubectl(&["exec", "a", "--", "sh", "-c", "nc -w 3 $KUBERNETES_SERVICE_HOST 443 < /dev/null"])?;
    let ip = node["status"]["addresses"][0]["address"].as_str().context("an address")?;
    let port =
        own.status()?["server"].as_str().and_then(|url| url.rsplit(':').next().map(str::to_owned)).context("url")?;
    let outside =
        own.program("curl".as_ref()).args(["-sk", "--max-time", "2", &format!("https://{ip}:{port}/")]).status()?;
    ensure!(!outside.success(), "nobody else reaches it");
    // A further node is on a link of the host, and so are its pods: its rules let them there, too.
    own.run(&["node", "add", "other"])?.ok()?;
    own.import_busybox(BUSYBOX)?;
    let there = r#"{"spec": {"nodeName": "other"}}"#;
    own.kubectl(&["run", "b", "--image", BUSYBOX, "--overrides", there, "--", "sleep", "1000"])?;
    own.ready("b")?;
    own.kubectl(&["exec", "b", "--", "sh", "-c", "nc -w 3 $KUBERNETES_SERVICE_HOST 443 < /dev/null"])?;
    own.wait_for("configmap two", PATIENCE, |object| object["metadata"]["name"] == "two")?;
    fs::write(apply.join("c.yml"), object("three"))?;
    own.wait_for("configmap three", PATIENCE, |object| object["metadata"]["name"] == "three")?;
    let told = |events: &serde_json::Value| {
        events["items"]
            .as_array()
            .is_some_and(|all| all.iter().any(|e| e["message"].as_str().is_some_and(|m| m.contains("a.yaml"))))
    };
    own.wait_for("events --field-selector reason=ApplyFailed", PATIENCE, told)?;
    // What a person put there stays.
    let said = own.run(&["reset", "--yes"])?.ok()?;
    ensure!(said.contains("Left, because the cluster did not make it") && apply.join("b.yaml").exists(), "{said}");
    Ok(())
}

fn look(cluster: &Cluster) -> Result<()> {
    let listed: serde_json::Value = serde_json::from_str(&cluster.run(&["ls", "-o", "json"])?.ok()?)?;
    ensure!(listed[0]["name"] == cluster.name.as_str() && listed[0]["state"] == "running", "{listed}");
    // A component that had nothing to tell has no line.
    let shown = cluster.run(&["logs", "daemon", "--tail", "5"])?.ok()?;
    let ours = shown.lines().all(|line| line.contains("ferrokube"));
    ensure!(shown.lines().count() <= 5 && ours && shown.contains("ready"), "{shown}");
    ensure!(cluster.run(&["logs", "kublet"])?.code == 2);
    let kubectl = tool("KUBECTL", "kubectl");
    let mut passed = std::process::Command::new(testkit::binary());
    passed
        .args(["--name", &cluster.name, "--data-dir"])
        .arg(cluster.data_dir())
        .args(["kubectl", "get", "nodes", "-o", "name"]);
    if let Some(dir) = kubectl.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        passed.env("PATH", dir);
    }
    ensure!(output(&mut passed, "")?.ok()?.starts_with("node/"));
    passed.env("PATH", "/nowhere");
    let missing = output(&mut passed, "")?.fails()?;
    ensure!(missing.contains("there is no kubectl on the PATH: get it from"), "{missing}");
    let (docker, saved) = (cluster.dir.join("to-save.tar"), cluster.dir.join("saved.tar"));
    busybox_archive(&docker, "example.com/saved:1")?;
    let text = |path: &std::path::Path| path.display().to_string();
    cluster.run(&["image", "import", &text(&docker)])?.ok()?;
    cluster.run(&["image", "tag", "example.com/saved:1", "example.com/other:2"])?.ok()?;
    cluster.run(&["image", "save", "example.com/other:2", "-o", &text(&saved)])?.ok()?;
    for name in ["example.com/saved:1", "example.com/other:2"] {
        cluster.run(&["image", "rm", name])?.ok()?;
    }
    let said = cluster.run(&["image", "import", &text(&saved)])?.ok()?;
    ensure!(said.contains("imported example.com/other:2"), "{said}");
    cluster.kubectl(&[
        "run",
        "saved",
        "--image",
        "example.com/other:2",
        "--image-pull-policy=Never",
        "--",
        "sleep",
        "1000",
    ])?;
    cluster.ready("saved")?;
    cluster.kubectl(&["delete", "pod", "saved", "--now"])?;
    cluster.run(&["image", "rm", "example.com/other:2"])?.ok()?;
    ensure!(cluster.run(&["image", "save", "nobody/here:1", "-o", &text(&saved)])?.fails()?.contains("not found"));
    Ok(())
}
