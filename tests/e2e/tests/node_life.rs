//! The life of a node: it is cut off, its pods are taken elsewhere, it comes back and ends what is no longer its own; it
//! works on without its server, also over a restart of its own; it stops in order. Times are shorter than by default.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::image::BUSYBOX;
use testkit::lan::{NETWORK, Port};
use testkit::runner::Test;
use testkit::{Cluster, Lan, Own, Running, Signal, eventually};

pub const TESTS: &[Test] = &[
    ("a_node_that_is_cut_off_loses_its_pods_and_comes_back", cut_off),
    ("a_worker_goes_on_without_its_server", without_server),
    ("a_node_that_stops_ends_its_pods_in_order_and_says_so", stops_in_order),
    ("a_worker_whose_address_changes_keeps_working", moves),
];

const NODE: &str = "worker";
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(30);
/// How long a node may be silent, as the controller manager is told.
const GRACE: &str = "node-monitor-grace-period=6s";
/// Leases that are renewed every second, and pods that have time to end when their node stops.
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
    nodeLeaseDurationSeconds: 4\nnodeStatusUpdateFrequency: 1s\n";

/// A server with a node, and a worker.
struct Two {
    lan: Lan,
    first: Own,
    second: Own,
    port: Port,
    agent: Running,
}

fn two(cluster: &Cluster, kubelet: &str) -> Result<Two> {
    let address = format!("{NETWORK}.2");
    two_with(cluster, kubelet, &["--node-ip", &address])
}

fn two_with(cluster: &Cluster, kubelet: &str, flags: &[&str]) -> Result<Two> {
    let lan = Lan::new(250)?;
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    lan.join(&first, 1)?;
    let port = lan.join(&second, 2)?;
    let settings = first.dir.join("kubelet.yaml");
    fs::write(&settings, KUBELET)?;
    let config = first.dir.join("config.yaml");
    fs::write(&config, format!("nodeName: first\nnodeIP: {NETWORK}.1\n"))?;
    let kubelet_arg = format!("config={}", settings.display());
    first
        .run(&[
            "up",
            "--config",
            &config.display().to_string(),
            "--kube-controller-manager-arg",
            GRACE,
            "--kubelet-arg",
            &kubelet_arg,
        ])?
        .ok()?;
    let record: Value = serde_json::from_slice(&fs::read(first.data_dir().join("cluster.json"))?)?;
    let (token, file) = (first.run(&["token", "create"])?.ok()?, second.dir.join("token"));
    fs::write(&file, token)?;
    let settings = second.dir.join("kubelet.yaml");
    fs::write(&settings, format!("{KUBELET}{kubelet}"))?;
    let server = format!("https://{NETWORK}.1:{}", record["apiPort"]);
    // As a host has it whose address comes by DHCP.
    second.host.as_ref().context("a host")?.sh(&format!("ip route replace default via {NETWORK}.1 dev wire"))?;
    let (file, kubelet_arg) = (file.display().to_string(), format!("config={}", settings.display()));
    let join =
        ["agent", "--server", &server, "--token-file", &file, "--node-name", NODE, "--kubelet-arg", &kubelet_arg];
    let agent = Running::start(&mut second.command(&[&join[..], flags].concat()))?;
    agent.expect(STARTS_WITHIN, &format!("Ready. The node {NODE} is in the cluster"))?;
    for own in [&first, &second] {
        own.import_busybox(BUSYBOX)?;
    }
    Ok(Two { lan, first, second, port, agent })
}

impl Two {
    /// A pod on the worker that ends when it is told to.
    fn pod(&self, name: &str, more: &Value) -> Result<()> {
        let mut spec =
            json!({"nodeName": NODE, "terminationGracePeriodSeconds": 5, "tolerations": [{"operator": "Exists"}]});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let overrides = json!({"spec": spec}).to_string();
        let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
        self.first.kubectl(&["run", name, "--image", BUSYBOX, "--overrides", &overrides, "--", "sh", "-c", script])?;
        self.first.ready(name).map(drop)
    }

    fn taints(&self) -> Result<Vec<String>> {
        let node = self.first.get(&format!("node/{NODE}"))?;
        let text = |taint: &Value| {
            format!("{}:{}", taint["key"].as_str().unwrap_or(""), taint["effect"].as_str().unwrap_or(""))
        };
        Ok(node["spec"]["taints"].as_array().into_iter().flatten().map(text).collect())
    }

    fn monitors(&self) -> Result<usize> {
        Ok(self.second.pids("monitor")?.len())
    }
}

fn ready(node: &Value) -> &Value {
    let found = node["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    found.unwrap_or(&Value::Null)
}

fn cut_off(cluster: &Cluster) -> Result<()> {
    let two = two(cluster, "")?;
    let (first, node) = (&two.first, format!("node/{NODE}"));
    first.kubectl(&["cordon", "first"])?;
    first.apply(&deployment().to_string())?;
    let on = |name: &str| {
        let pods = first.get("pods -l app=moves")?;
        let live =
            pods["items"].as_array().into_iter().flatten().filter(|p| p["metadata"]["deletionTimestamp"].is_null());
        let found: Vec<&str> =
            live.filter(|p| p["status"]["phase"] == "Running").filter_map(|p| p["spec"]["nodeName"].as_str()).collect();
        ensure!(found == [name], "{found:?}");
        Ok(())
    };
    eventually(SOON, || on(NODE))?;
    first.kubectl(&["uncordon", "first"])?;
    two.pod("stays", &json!({"terminationGracePeriodSeconds": 1}))?;
    two.pod("forced", &json!({}))?;
    ensure!(two.monitors()? == 3, "three containers");
    let provider = json!({"spec": {"providerID": "cloud://zone/worker"}}).to_string();
    first.kubectl(&["patch", &node, "-p", &provider])?;
    let ranges = first.get(&node)?["spec"]["podCIDRs"].clone();

    two.lan.cut(&two.port)?;
    let silent = first.wait_for(&node, SOON, |node| ready(node)["status"] == "Unknown")?;
    ensure!(ready(&silent)["reason"] == "NodeStatusUnknown", "{:#}", ready(&silent));
    eventually(SOON, || {
        let taints = two.taints()?;
        for effect in ["NoSchedule", "NoExecute"] {
            ensure!(taints.contains(&format!("node.kubernetes.io/unreachable:{effect}")), "{taints:?}");
        }
        Ok(())
    })?;
    // What tolerates it for two seconds is taken elsewhere; what tolerates it for ever stays, and is not ready.
    eventually(SOON, || on("first"))?;
    first.wait_for("pod/stays", SOON, |pod| pod["metadata"]["deletionTimestamp"].is_null() && !is_ready(pod))?;
    first.kubectl(&["delete", "pod", "forced", "--force", "--grace-period=0"])?;
    ensure!(first.kubectl_with(&["get", "pod", "forced"], "")?.fails()?.contains("NotFound"), "it is gone at once");
    ensure!(two.monitors()? == 3, "nobody has told the node");

    two.lan.mend(&two.port)?;
    first.wait_for(&node, SOON, |node| ready(node)["status"] == "True")?;
    eventually(SOON, || {
        let taints = two.taints()?;
        ensure!(taints.is_empty(), "{taints:?}");
        ensure!(two.monitors()? == 1, "only the pod that is still its own runs: {}", two.monitors()?);
        ensure!(
            first.get("pods -l app=moves")?["items"].as_array().is_some_and(|all| all.len() == 1),
            "the old one is gone"
        );
        Ok(())
    })?;
    first.ready("stays")?;
    let after = first.get(&node)?;
    ensure!(
        after["spec"]["podCIDRs"] == ranges && after["spec"]["providerID"] == "cloud://zone/worker",
        "{:#}",
        after["spec"]
    );
    out_of_service(&two)
}

/// A node that a person says is off loses its pods without a word of its own.
fn out_of_service(two: &Two) -> Result<()> {
    two.lan.cut(&two.port)?;
    let node = format!("node/{NODE}");
    two.first.wait_for(&node, SOON, |node| ready(node)["status"] == "Unknown")?;
    two.first.kubectl(&["delete", "pod", "stays", "--wait=false"])?;
    std::thread::sleep(Duration::from_secs(3));
    two.first.get("pod/stays").context("nobody says that it has ended")?;
    two.first.kubectl(&["taint", "node", NODE, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"])?;
    eventually(SOON, || {
        ensure!(two.first.kubectl_with(&["get", "pod", "stays"], "")?.code != 0, "it is still there");
        Ok(())
    })?;
    two.lan.mend(&two.port)?;
    two.first.kubectl(&["taint", "node", NODE, "node.kubernetes.io/out-of-service-"])?;
    two.first.wait_for(&node, SOON, |node| ready(node)["status"] == "True").map(drop)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn deployment() -> Value {
    let soon = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "moves"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "moves"}},
        "template": {"metadata": {"labels": {"app": "moves"}}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "tolerations": [soon("node.kubernetes.io/unreachable"), soon("node.kubernetes.io/not-ready")],
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["sleep", "1000"]}]}}}})
}

/// What a person on the worker sees of its Services and names.
fn reaches(second: &Own, service: &str, dns: &str) -> Result<()> {
    let host = second.host.as_ref().context("a host")?;
    let page = host.sh(&format!("curl -sS --max-time 3 http://{service}/"))?;
    ensure!(page == "hello\n", "{page}");
    let named = host.sh(&format!("busybox nslookup web.default.svc.cluster.local {dns} 2>&1; true"))?;
    ensure!(named.contains(service), "{named}");
    Ok(())
}

fn without_server(cluster: &Cluster) -> Result<()> {
    let two = two(cluster, "")?;
    let (first, second) = (&two.first, &two.second);
    let pod = json!({"spec": {"nodeName": NODE, "tolerations": [{"operator": "Exists"}]}}).to_string();
    let serve = ["--", "httpd", "-f", "-h", "/var/www"];
    first.kubectl(&[&["run", "web", "--image", BUSYBOX, "--port", "80", "--overrides", &pod][..], &serve].concat())?;
    first.ready("web")?;
    first.kubectl(&["expose", "pod", "web", "--port", "80"])?;
    let service = first.get("service/web")?["spec"]["clusterIP"].as_str().context("an address")?.to_owned();
    let dns =
        first.get("-n kube-system service/kube-dns")?["spec"]["clusterIP"].as_str().context("an address")?.to_owned();
    eventually(SOON, || reaches(second, &service, &dns))?;
    // It is written down a while after it was learned.
    eventually(SOON, || {
        let kept = fs::read_to_string(second.data_dir().join("last-known/dns/services.jsonl"))?;
        ensure!(kept.contains("\"web\""), "{kept}");
        Ok(())
    })?;
    let monitors = second.pids("monitor")?;

    first.run(&["down"])?.ok()?;
    reaches(second, &service, &dns).context("the server is away")?;
    two.agent.signal(Signal::KILL)?;
    eventually(SOON, || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })?;
    // Also what the kernel had of the Services is lost: as after somebody flushed it.
    second.host.as_ref().context("a host")?.sh("nft flush ruleset")?;
    let agent = Running::start(&mut second.command(&["agent"]))?;
    eventually(SOON, || reaches(second, &service, &dns)).context("the worker was restarted, the server is away")?;
    agent.expect(STARTS_WITHIN, "Ready.")?;
    ensure!(agent.said().contains("no API server answers"), "{}", agent.said());
    ensure!(second.pids("monitor")? == monitors, "pods go on");

    first.up()?;
    first.wait_for(&format!("node/{NODE}"), SOON, |node| ready(node)["status"] == "True")?;
    first.ready("web")?;
    ensure!(second.pids("monitor")? == monitors, "and still do");
    first.kubectl(&["expose", "pod", "web", "--name", "later", "--port", "80"])?;
    let later = first.get("service/later")?["spec"]["clusterIP"].as_str().context("an address")?.to_owned();
    eventually(SOON, || {
        let page = second.host.as_ref().context("a host")?.sh(&format!("curl -sS --max-time 3 http://{later}/"))?;
        ensure!(page == "hello\n", "{page}");
        Ok(())
    })?;
    agent.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })
}

fn stops_in_order(cluster: &Cluster) -> Result<()> {
    let two = two(cluster, "shutdownGracePeriod: 8s\nshutdownGracePeriodCriticalPods: 4s\n")?;
    two.pod("ordinary", &json!({}))?;
    two.pod("critical", &json!({"priorityClassName": "system-node-critical"}))?;
    two.agent.signal(Signal::TERM)?;
    let ended = |name: &str| two.first.wait_for(&format!("pod/{name}"), SOON, |pod| pod["status"]["phase"] == "Failed");
    let (ordinary, critical) = (ended("ordinary")?, ended("critical")?);
    for pod in [&ordinary, &critical] {
        ensure!(pod["status"]["reason"] == "Terminated", "{:#}", pod["status"]);
        let told = pod["status"]["message"] == "Pod was terminated in response to imminent node shutdown.";
        ensure!(told, "{:#}", pod["status"]);
    }
    let at = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"].as_str().unwrap_or("").to_owned()
    };
    ensure!(at(&ordinary) <= at(&critical), "{} {}", at(&ordinary), at(&critical));
    let node = two.first.get(&format!("node/{NODE}"))?;
    ensure!(
        ready(&node)["message"].as_str().is_some_and(|said| said.contains("node is shutting down")),
        "{:#}",
        ready(&node)
    );
    eventually(SOON, || {
        ensure!(two.second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })
}

fn moves(cluster: &Cluster) -> Result<()> {
    let two = two_with(cluster, "", &[])?;
    let told = |expected: &str| {
        let node = two.first.get(&format!("node/{NODE}"))?;
        let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let internal = addresses.iter().find(|a| a["type"] == "InternalIP").map(|a| a["address"].clone());
        ensure!(internal == Some(json!(expected)), "{addresses:?}");
        Ok(())
    };
    told(&format!("{NETWORK}.2"))?;
    two.pod("there", &json!({}))?;
    let host = two.second.host.as_ref().context("a host")?;
    host.sh(&format!(
        "ip address del {NETWORK}.2/24 dev wire; ip address add {NETWORK}.12/24 dev wire; \
         ip route replace default via {NETWORK}.1 dev wire"
    ))?;
    eventually(SOON, || told(&format!("{NETWORK}.12")))?;
    // The kubelet serves with a certificate that names the new address.
    eventually(SOON, || {
        ensure!(two.first.kubectl(&["exec", "there", "--", "echo", "heard"])? == "heard\n");
        Ok(())
    })?;
    let node = two.first.get(&format!("node/{NODE}"))?;
    ensure!(ready(&node)["status"] == "True", "{:#}", ready(&node));
    two.agent.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(two.second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })
}
