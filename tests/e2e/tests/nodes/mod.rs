//! Several nodes on one host: each is a machine to kubectl and to the network, goes on when daemons are killed, comes and
//! goes by `node`, and leaves nothing behind. One cluster of three for all of it.

mod traffic;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Host, Own, eventually, output};

pub const TESTS: &[Test] = &[("three_nodes_on_one_host_are_machines", three)];

const SOON: Duration = Duration::from_secs(30);
/// A node that is cut off is NotReady after the grace that `up` is told here, and a moment for who looks.
const GRACE: &str = "node-monitor-grace-period=15s";
const NOT_READY: Duration = Duration::from_secs(40);
const FIRST: &str = "alpha";
const SECOND: &str = "alpha-2";
const THIRD: &str = "alpha-3";
const ALL: [&str; 3] = [FIRST, SECOND, THIRD];

/// On every node, also on those that take no others.
const EVERYWHERE: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: docker.io/library/busybox:test
        command: [sh, -c, "echo serving on $NODE; mkdir -p /www; echo $NODE > /www/index.html; exec httpd -f -p 8080 -h /www"]
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"#;

/// What a pod with all of its node's files sees.
const SPY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: spy}
spec:
  nodeName: alpha-2
  hostNetwork: true
  hostPID: true
  containers:
  - name: c
    image: docker.io/library/busybox:test
    command: [sleep, "100000"]
    volumeMounts: [{name: host, mountPath: /host}]
  volumes: [{name: host, hostPath: {path: /}}]
"#;

/// A part of the test, and its name.
type Step = (&'static str, fn(&Own) -> Result<()>);

const STEPS: &[Step] = &[
    ("each node looks like a machine", machines),
    ("an image comes to all nodes and is on the disk once", images),
    ("pods of every node work", pods),
    ("every pod reaches every pod", traffic::between_pods),
    ("Services, names and node ports lead to every node", traffic::services),
    ("kubectl comes into pods of every node", traffic::into_pods),
    ("check tells what packets between nodes meet", traffic::checked),
    ("a pod of a node sees nothing of the host's cluster", hidden),
    ("containers outlive their node's daemon", killed_node),
    ("nodes outlive the host's daemon", killed_host),
    ("a node is added, with labels and taints, and removed", added),
    ("a node is stopped as a machine that goes down, and started", stopped),
    ("down ends all and up brings all back", down_and_up),
];

fn three(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("nodes")?;
    let host = own.host.clone().context("a host")?;
    let before = traces(&host, &own)?;
    let config = own.dir.join("config.yaml");
    fs::write(&config, format!("nodeName: {FIRST}\n"))?;
    let up = ["up", "--nodes", "3", "--config", &config.display().to_string(), "--kube-controller-manager-arg", GRACE];
    let said = own.run(&up)?.ok()?;
    for node in [SECOND, THIRD] {
        ensure!(said.contains(&format!("Node {node} is Ready")), "{said}");
    }
    for (what, step) in STEPS {
        let log = |node: &str| own.run(&["logs", "--node", node, "--tail", "20"]).map(|o| o.stdout).unwrap_or_default();
        step(&own).with_context(|| format!("{what}\n--- {SECOND}\n{}\n--- {THIRD}\n{}", log(SECOND), log(THIRD)))?;
    }
    own.run(&["reset", "--yes"])?.ok()?;
    eventually(SOON, || {
        let after = traces(&host, &own)?;
        let left: Vec<_> = after.difference(&before).collect();
        ensure!(
            left.is_empty() && before.is_subset(&after),
            "left behind: {left:#?}; gone: {:#?}",
            before.difference(&after)
        );
        Ok(())
    })
}

/// What nodes could leave on the host.
pub fn traces(host: &Host, own: &Own) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut add = |what: &str, text: &str| found.extend(text.lines().map(|line| format!("{what}: {line}")));
    add("link", &host.sh("ip -o link | cut -d: -f2- | sed 's/ qlen.*//'")?);
    add("address", &host.sh("ip -o address | cut -d: -f2- | sed 's/valid_lft.*//'")?);
    add("route", &host.sh("ip route show table all")?);
    add("nftables", &host.sh("nft list ruleset")?);
    add("mount", &host.sh(&format!("cut -d' ' -f5 /proc/self/mountinfo | grep {} || true", own.name))?);
    let names = format!("ls -d {} /run/ferrokube/{} 2>/dev/null || true", own.data_dir().display(), own.name);
    add("directory", &host.sh(&names)?);
    // Whatever namespaces they are in: all of them say the cluster's name.
    for process in processes(&own.name)? {
        add("process", &process);
    }
    // Groups of others may go while they are looked for.
    add("group", &host.sh("find /sys/fs/cgroup -type d -name 'alpha-*' 2>/dev/null || true")?);
    Ok(found)
}

/// Command lines of init and daemon of every node, and of the host's.
fn processes(cluster: &str) -> Result<Vec<String>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let lines = pids.filter_map(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = words.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let is_ours = words.get(1).is_some_and(|word| ["server", "supervisor"].contains(&word.as_str()));
        (is_ours && words.iter().any(|word| word == cluster)).then(|| format!("{pid} {}", words.join(" ")))
    });
    Ok(lines.collect())
}

fn listed(own: &Own) -> Result<Vec<Value>> {
    let listed: Value = serde_json::from_str(&own.run(&["node", "ls", "-o", "json"])?.ok()?)?;
    Ok(listed.as_array().context("a list")?.clone())
}

/// A node of the list.
fn row(own: &Own, node: &str) -> Result<Value> {
    listed(own)?.into_iter().find(|row| row["name"] == node).with_context(|| format!("{node} is not listed"))
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn machines(own: &Own) -> Result<()> {
    let nodes: Vec<Value> = own.get("nodes")?["items"].as_array().context("nodes")?.clone();
    ensure!(nodes.len() == 3 && nodes.iter().all(is_ready), "{nodes:#?}");
    let each = |what: &dyn Fn(&Value) -> String| nodes.iter().map(what).collect::<BTreeSet<_>>();
    let address = |node: &Value, kind: &str| {
        let all = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let found =
            all.iter().find(|a| a["type"] == kind).map(|a| a["address"].as_str().unwrap_or_default().to_owned());
        found.unwrap_or_default()
    };
    let names = each(&|node| node["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    ensure!(names == ALL.map(str::to_owned).into(), "{names:?}");
    // The first was given a name that is not its host's.
    let hosts = each(&|node| address(node, "Hostname"));
    ensure!(hosts.len() == 3 && [SECOND, THIRD].iter().all(|node| hosts.contains(*node)), "{hosts:?}");
    let addresses = each(&|node| address(node, "InternalIP"));
    ensure!(
        addresses.len() == 3 && addresses.iter().filter(|a| a.starts_with("10.202.")).count() == 2,
        "{addresses:?}"
    );
    for field in ["machineID", "bootID", "systemUUID"] {
        let values = each(&|node| node["status"]["nodeInfo"][field].as_str().unwrap_or_default().to_owned());
        ensure!(values.len() == 3, "{field}: {values:?}");
    }
    ensure!(each(&|node| node["spec"]["podCIDR"].as_str().unwrap_or_default().to_owned()).len() == 3);
    for node in ALL {
        let row = row(own, node)?;
        ensure!(row["status"] == "Ready" && row["state"] == "running" && row["here"] == true, "{row}");
        ensure!(addresses.contains(row["internalIP"].as_str().unwrap_or_default()), "{row}");
    }
    let status = own.status()?.to_string();
    ensure!(status.contains(SECOND) && own.pids("node")?.len() == 2, "{status}");
    // As many are there already; fewer is what `node rm` is for.
    ensure!(own.run(&["up", "--nodes", "3"])?.code == 0);
    let said = own.run(&["up", "--nodes", "2"])?.fails()?;
    ensure!(said.contains("has 3 nodes") && said.contains("node rm"), "{said}");
    let said = own.run(&["up", "--nodes", "3", "--node-cidr", "10.9.0.0/24"])?.fails()?;
    ensure!(said.contains("--node-cidr 10.9.0.0/24"), "{said}");
    Ok(())
}

/// A file of this name below a directory.
fn find(dir: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let found = output(Command::new("find").arg(dir).args(["-xdev", "-path", &format!("*{name}")]), "")?.ok()?;
    Ok(found.lines().map(PathBuf::from).collect())
}

fn images(own: &Own) -> Result<()> {
    let file = own.dir.join("busybox.tar");
    testkit::image::busybox_archive(&file, BUSYBOX)?;
    let said = own.run(&["image", "import", &file.display().to_string()])?.ok()?;
    ensure!(said.contains(&format!("imported {BUSYBOX} on 3 nodes")), "{said}");
    for node in ALL {
        let listed = own.run(&["image", "ls", "--node", node])?.ok()?;
        ensure!(listed.contains("library/busybox:test"), "{node}: {listed}");
    }
    let stores = [own.data_dir().join("runtime/images/layers"), own.data_dir().join("nodes")];
    let copies = [find(&stores[0], "/bin/busybox")?, find(&stores[1], "/bin/busybox")?];
    let inode = |path: &PathBuf| fs::metadata(path).map(|about| about.ino());
    ensure!(copies[0].len() == 1 && copies[1].len() == 1, "{copies:?}");
    ensure!(inode(&copies[0][0])? == inode(&copies[1][0])?, "the same file");
    // One node alone.
    own.run(&["image", "tag", BUSYBOX, "example.com/alone:1", "--node", THIRD])?.ok()?;
    let has = |node: &str| anyhow::Ok(own.run(&["image", "ls", "--node", node])?.ok()?.contains("example.com/alone:1"));
    ensure!(has(THIRD)? && !has(FIRST)? && !has(SECOND)?);
    own.run(&["image", "rm", "example.com/alone:1"])?.ok()?;
    ensure!(!has(THIRD)?);
    let said = own.run(&["image", "ls", "--node", "nobody"])?.fails()?;
    ensure!(said.contains("no further node \"nobody\": it has alpha-2, alpha-3"), "{said}");
    Ok(())
}

/// The pod of a node.
fn pod_on(own: &Own, node: &str) -> Result<String> {
    let args = ["get", "pods", "-l", "app=web", "--field-selector", &format!("spec.nodeName={node}"), "-o", "name"];
    let name = own.kubectl(&args)?;
    Ok(name.trim().strip_prefix("pod/").with_context(|| format!("no pod on {node}"))?.to_owned())
}

fn everywhere(own: &Own) -> Result<()> {
    own.kubectl(&["rollout", "status", "daemonset/web", "--timeout=60s"]).map(drop)
}

fn pods(own: &Own) -> Result<()> {
    own.apply(EVERYWHERE)?;
    everywhere(own)?;
    for node in ALL {
        let pod = pod_on(own, node)?;
        let works = || -> Result<()> {
            let said = own.kubectl(&["logs", &pod])?;
            ensure!(said == format!("serving on {node}\n"), "{said}");
            ensure!(own.kubectl(&["exec", &pod, "--", "cat", "/www/index.html"])? == format!("{node}\n"));
            own.kubectl(&["exec", &pod, "--", "nslookup", "kubernetes.default.svc.cluster.local"])?;
            own.kubectl(&["exec", &pod, "--", "sh", "-c", "nc -w 3 $KUBERNETES_SERVICE_HOST 443 < /dev/null"])?;
            let file = own.dir.join("page");
            own.kubectl(&["cp", &format!("{pod}:/www/index.html"), &file.display().to_string()])?;
            ensure!(fs::read_to_string(&file)? == format!("{node}\n"));
            Ok(())
        };
        eventually(SOON, works).with_context(|| format!("the pod of {node}"))?;
    }
    Ok(())
}

fn hidden(own: &Own) -> Result<()> {
    own.apply(SPY)?;
    own.ready("spy")?;
    let see = |script: &str| own.kubectl(&["exec", "spy", "--", "sh", "-c", script]);
    ensure!(see("hostname")? == format!("{SECOND}\n"));
    let data = own.data_dir().display().to_string();
    let seen = see(&format!("ls -A /host{data} /host{data}/nodes /host/run/ferrokube/{}", own.name))?;
    let of_host = ["pki", "etcd", "kubeconfig", ".record", THIRD];
    ensure!(!seen.lines().any(|line| of_host.contains(&line)), "{seen}");
    ensure!(seen.lines().any(|line| line == SECOND) && seen.contains("cri.sock"), "its own: {seen}");
    // Its own links and processes, not the host's.
    let links = see("ip -o link")?;
    ensure!(links.contains("eth0") && !links.contains("uplink"), "{links}");
    ensure!(see("cat /proc/1/comm")?.trim() == "fk-supervisor", "process 1 is the node's init");
    // Layers that others have, too.
    let layers = see(&format!("cd /host{data}/nodes/{SECOND}/runtime/images/layers/s && ls && ! touch 1/x 2>&1"))?;
    ensure!(layers.contains("Read-only file system"), "{layers}");
    own.kubectl(&["delete", "pod", "spy", "--grace-period=0", "--force"]).map(drop)
}

/// What a node's init has started, by the host's numbers.
fn daemon_of(init: i64) -> Result<i64> {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
    let is_daemon = |pid: &i64| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| String::from_utf8_lossy(&words).contains("told-to-parent"))
    };
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_daemon).context("no daemon")
}

fn kill(pid: i64) -> Result<()> {
    output(Command::new("kill").args(["-9", &pid.to_string()]), "")?.ok().map(drop)
}

/// When the container of a node's pod was started, and how often.
fn started(own: &Own, node: &str) -> Result<String> {
    let pod = own.get(&format!("pod {}", pod_on(own, node)?))?;
    let status = &pod["status"]["containerStatuses"][0];
    Ok(format!("{} {} {}", status["containerID"], status["restartCount"], status["state"]["running"]["startedAt"]))
}

fn killed_node(own: &Own) -> Result<()> {
    let init = row(own, SECOND)?["pid"].as_i64().context("a pid")?;
    let (daemon, before) = (daemon_of(init)?, started(own, SECOND)?);
    kill(daemon)?;
    let again = eventually(SOON, || {
        let again = daemon_of(init)?;
        ensure!(again != daemon);
        Ok(again)
    })?;
    let pod = pod_on(own, SECOND)?;
    eventually(SOON, || {
        ensure!(own.kubectl(&["exec", &pod, "--", "cat", "/www/index.html"])? == format!("{SECOND}\n"));
        Ok(())
    })?;
    ensure!(row(own, SECOND)?["pid"] == init && daemon_of(init)? == again);
    let after = started(own, SECOND)?;
    ensure!(before == after, "{before} {after}");
    // The node's end is not the host's.
    ensure!(row(own, THIRD)?["state"] == "running");
    Ok(())
}

fn killed_host(own: &Own) -> Result<()> {
    let before = [SECOND, THIRD].map(|node| row(own, node).map(|row| row["pid"].clone()).ok());
    let daemon = *own.pids("daemon")?.first().context("a daemon")?;
    let containers = started(own, THIRD)?;
    kill(daemon.into())?;
    eventually(SOON, || {
        ensure!(own.pids("daemon")?.iter().any(|pid| *pid != daemon));
        ensure!(own.status()?["state"] == "running");
        own.kubectl(&["get", "nodes"]).map(drop)
    })?;
    let after = [SECOND, THIRD].map(|node| row(own, node).map(|row| row["pid"].clone()).ok());
    ensure!(before == after && before[0].is_some(), "{before:?} {after:?}");
    let pod = pod_on(own, THIRD)?;
    eventually(SOON, || own.kubectl(&["exec", &pod, "--", "true"]).map(drop))?;
    ensure!(started(own, THIRD)? == containers);
    Ok(())
}

fn added(own: &Own) -> Result<()> {
    let said = own.run(&["node", "add", SECOND])?.fails()?;
    ensure!(said.contains("has a node \"alpha-2\" already"), "{said}");
    let said = own.run(&["node", "add", "blue", "--label", "zone"])?.fails()?;
    ensure!(said.contains("--label zone: write it like key=value"), "{said}");
    let said = own.run(&["node", "add", "blue", "--label", "zone=b", "--taint", "only=blue:NoSchedule"])?.ok()?;
    ensure!(said.contains("The node blue is Ready"), "{said}");
    let node = own.get("node blue")?;
    ensure!(node["metadata"]["labels"]["zone"] == "b", "{node:#}");
    ensure!(node["spec"]["taints"].to_string().contains("\"only\""), "{node:#}");
    // What was imported before is there.
    ensure!(own.run(&["image", "ls", "--node", "blue"])?.ok()?.contains("library/busybox:test"));
    let said = own.run(&["node", "rm", "blue"])?.ok()?;
    ensure!(said.contains("The node blue is gone"), "{said}");
    ensure!(own.kubectl_with(&["get", "node", "blue"], "")?.fails()?.contains("not found"));
    ensure!(!own.data_dir().join("nodes/blue").exists() && listed(own)?.len() == 3);
    let links = own.host.as_ref().context("a host")?.sh("ip -o link")?;
    ensure!(!links.contains("-node4"), "{links}");
    ensure!(own.run(&["node", "rm", "blue"])?.fails()?.contains("no further node \"blue\""));
    ensure!(own.run(&["node", "stop", FIRST])?.fails()?.contains("this host's own node"));
    Ok(())
}

fn stopped(own: &Own) -> Result<()> {
    let pod = pod_on(own, THIRD)?;
    let boot = |node: &Value| node["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_owned();
    let before = boot(&own.get(&format!("node {THIRD}"))?);
    own.run(&["node", "stop", THIRD])?.ok()?;
    let now = row(own, THIRD)?;
    ensure!(now["state"] == "stopped" && now["pid"].is_null(), "{now}");
    own.wait_for(&format!("node {THIRD}"), NOT_READY, |node| !is_ready(node))?;
    own.run(&["node", "start", THIRD])?.ok()?;
    let node = own.wait_for(&format!("node {THIRD}"), SOON, is_ready)?;
    ensure!(boot(&node) != before, "it was booted");
    own.ready(&pod)?;
    eventually(SOON, || own.kubectl(&["exec", &pod, "--", "true"]).map(drop))?;
    ensure!(own.run(&["node", "start", THIRD])?.ok()?.contains("runs already"));
    Ok(())
}

fn down_and_up(own: &Own) -> Result<()> {
    own.run(&["down"])?.ok()?;
    eventually(SOON, || {
        let left = processes(&own.name)?;
        ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    })?;
    let said = own.run(&["up"])?.ok()?;
    ensure!(said.contains(&format!("Node {SECOND} is Ready")), "{said}");
    everywhere(own)?;
    for node in ALL {
        let pod = pod_on(own, node)?;
        eventually(SOON, || own.kubectl(&["exec", &pod, "--", "true"]).map(drop))?;
    }
    Ok(())
}
