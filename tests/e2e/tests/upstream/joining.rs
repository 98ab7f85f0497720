//! The tests: who joins whom. See [`super`].

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Own, Running, Signal, binary, eventually};

use super::node::Node;
use super::plane::Plane;
use super::{Upstream, private_folders};
use crate::two_hosts::{FIRST, NODE, SECOND, SOON, ready, up_at, wire};

pub const TESTS: &[Test] = &[
    ("our_agent_joins_upstreams_control_plane", agent_joins),
    ("our_kube_proxy_stands_in_for_upstreams", proxy_stands_in),
    ("upstreams_kubelet_joins_our_control_plane", kubelet_joins),
];

/// What an add-on would put there: pods of this node, connected by plug-ins that are in the program.
const CONFLIST: &str = r#"{"cniVersion": "1.0.0", "name": "addon", "plugins": [
    {"type": "bridge", "bridge": "addon0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.77.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}"#;

/// A pod of busybox on this node.
fn pod(own: &Cluster, name: &str, node: &str, command: &[&str]) -> Result<serde_json::Value> {
    let spec = json!({"spec": {"nodeName": node, "tolerations": [{"operator": "Exists"}]}}).to_string();
    own.kubectl(&[&["run", name, "--image", BUSYBOX, "--overrides", &spec, "--"], command].concat())?;
    own.ready(name)
}

/// Logs, exec and what a pod sees: through the API server, which reaches the kubelet.
fn is_reached(own: &Cluster, name: &str) -> Result<()> {
    eventually(SOON, || {
        ensure!(own.kubectl(&["logs", name])? == "started\n");
        ensure!(own.kubectl(&["exec", name, "--", "echo", "heard"])? == "heard\n");
        Ok(())
    })
}

const STARTED: [&str; 3] = ["sh", "-c", "echo started; exec httpd -f -h /var/www"];

fn agent_joins(cluster: &Cluster) -> Result<()> {
    let Some(upstream) = Upstream::find() else { return Ok(()) };
    let second = cluster.elsewhere("second")?;
    let mut plane = Plane::new(cluster)?;
    wire(&plane.own, &second)?;
    plane.run(&upstream)?;
    private_folders(&second)?;
    let words = plane.words()?;
    let join = ["agent", "--server", &plane.server, "--token", &words, "--node-name", NODE, "--node-ip", SECOND];
    let agent = Running::start(&mut second.command(&join))?;
    let done = agent_works(&plane, &second, agent);
    done.with_context(|| plane.last_words())
}

fn agent_works(plane: &Plane, second: &Own, agent: Running) -> Result<()> {
    // No add-on has come yet: the node is there, and says what it waits for.
    ready(&agent)?;
    let said = agent.said();
    for sentence in [
        "the pod network is left to the cluster's add-on",
        "kube-proxy is left to the cluster's own",
        "cluster DNS is left to the cluster's own: pods ask 10.96.0.10",
        "a certificate that it has signed itself",
    ] {
        ensure!(said.matches(sentence).count() == 1, "{sentence:?} once: {said}");
    }
    let waits = "not ready yet: container runtime network not ready: ";
    ensure!(said.contains(waits) && said.contains("no network is configured in /etc/cni/net.d"), "{said}");
    let host = second.host.as_ref().context("a host")?;
    fs::write(second.dir.join("conflist"), CONFLIST)?;
    host.sh(&format!("cp {} /etc/cni/net.d/10-addon.conflist", second.dir.join("conflist").display()))?;
    let is_ready = |node: &serde_json::Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    plane.own.wait_for(&format!("node/{NODE}"), SOON, is_ready).with_context(|| agent.said())?;
    second.import_busybox(BUSYBOX)?;
    let web = pod(&plane.own, "web", NODE, &STARTED).with_context(|| agent.said())?;
    let address = web["status"]["podIP"].as_str().context("an address")?.to_owned();
    ensure!(address.starts_with("10.244.77."), "the add-on's: {address}");
    is_reached(&plane.own, "web")?;
    let resolver = plane.own.kubectl(&["exec", "web", "--", "cat", "/etc/resolv.conf"])?;
    ensure!(resolver.contains("nameserver 10.96.0.10"), "{resolver}");
    plane.own.kubectl(&["expose", "pod", "web", "--port=80"])?;
    let service = plane.own.get("service/web")?["spec"]["clusterIP"].as_str().context("an address")?.to_owned();
    let page = |at: &str| host.sh(&format!("curl -sS --max-time 3 http://{at}/"));
    ensure!(page(&address)? == "hello\n" && page(&service).is_err(), "nobody leads Services here yet");
    let requests = plane.own.kubectl(&["get", "csr", "-o", "jsonpath={.items[*].spec.signerName}"])?;
    ensure!(!requests.contains("kubelet-serving"), "nobody would sign it: {requests}");
    quiet(&agent)?;
    // As the sentence says: a cluster without kube-proxy lets its nodes read what one reads.
    let role = ["--clusterrole=system:node-proxier", "--group=system:nodes"];
    plane.own.kubectl(&[&["create", "clusterrolebinding", "ferrokube-node-proxier"], &role[..]].concat())?;
    agent.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })?;
    let agent = Running::start(&mut second.command(&["agent"]))?;
    ready(&agent)?;
    ensure!(!agent.said().contains("kube-proxy is left"), "{}", agent.said());
    plane.own.wait_for(&format!("node/{NODE}"), SOON, is_ready).with_context(|| agent.said())?;
    plane.own.kubectl(&["delete", "pod", "web", "--now"])?;
    pod(&plane.own, "web", NODE, &STARTED).with_context(|| agent.said())?;
    eventually(SOON, || {
        ensure!(page(&service)? == "hello\n");
        Ok(())
    })?;
    quiet(&agent)?;
    agent.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })
}

/// Nothing is refused again and again. A pod's objects may be for a moment: upstream's authoriser follows bindings behind.
fn quiet(agent: &Running) -> Result<()> {
    std::thread::sleep(Duration::from_secs(5));
    let said = agent.said();
    let refused = said.lines().filter(|line| line.contains("forbidden") || line.contains("ended"));
    let refused: Vec<_> = refused.filter(|line| !line.contains("no relationship found between node")).collect();
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

fn proxy_stands_in(cluster: &Cluster) -> Result<()> {
    let Some(upstream) = Upstream::find() else { return Ok(()) };
    let mut plane = Plane::new(cluster)?;
    let other = cluster.elsewhere("second")?;
    wire(&plane.own, &other)?;
    plane.run(&upstream)?;
    let mut node = Node::new(&upstream, &plane.own, "10.244.0.0/24")?;
    node.join("first", FIRST, &plane.server, &plane.words()?)?;
    let done = services(&plane, &mut node);
    done.with_context(|| format!("{}{}", plane.last_words(), node.last_words()))
}

fn services(plane: &Plane, node: &mut Node) -> Result<()> {
    // The identity that kubeadm's DaemonSet has, by its account.
    let own = &plane.own;
    let token = own.kubectl(&["-n", "kube-system", "create", "token", "kube-proxy"])?;
    let kubeconfig = plane.with_token("kube-proxy", token.trim())?;
    let mut proxy = own.program(&binary());
    proxy.args(["kube-proxy", "--kubeconfig", &kubeconfig, "--cluster-cidr", super::plane::PODS]);
    node.add("kube-proxy", proxy.args(["--hostname-override", "first", "--proxy-mode", "nftables"]))?;
    pod(own, "web", "first", &STARTED)?;
    pod(own, "client", "first", &["sh", "-c", "echo started; exec sleep 1000"])?;
    is_reached(own, "client")?;
    own.kubectl(&["expose", "pod", "web", "--port=80", "--type=NodePort"])?;
    let service = own.get("service/web")?;
    let address = service["spec"]["clusterIP"].as_str().context("an address")?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("a port")?;
    let host = own.host.as_ref().context("a host")?;
    eventually(SOON, || {
        for at in [address.to_owned(), format!("{FIRST}:{port}")] {
            ensure!(host.sh(&format!("curl -sS --max-time 3 http://{at}/"))? == "hello\n", "{at} from the host");
        }
        let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 80");
        let page = own.kubectl(&["exec", "client", "--", "sh", "-c", &get])?;
        ensure!(page.ends_with("hello\n"), "from a pod: {page:?}");
        let version = host.sh(&format!("curl -sSk --max-time 3 https://{}/version", "10.96.0.1"))?;
        ensure!(version.contains("gitVersion"), "the kubernetes Service: {version}");
        Ok(())
    })
}

fn kubelet_joins(cluster: &Cluster) -> Result<()> {
    let Some(upstream) = Upstream::find() else { return Ok(()) };
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    wire(&first, &second)?;
    up_at(&first, &[])?;
    private_folders(&second)?;
    let words = first.run(&["token", "create"])?.ok()?.trim().to_owned();
    let mut node = Node::new(&upstream, &second, "10.42.77.0/24")?;
    let done = theirs_works(&upstream, &first, &second, &mut node, &words);
    done.with_context(|| node.last_words())
}

fn theirs_works(upstream: &Upstream, first: &Own, second: &Own, node: &mut Node, words: &str) -> Result<()> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(first.data_dir().join("cluster.json"))?)?;
    let server = format!("https://{FIRST}:{}", record["apiPort"]);
    node.join(NODE, SECOND, &server, words)?;
    let is_ready = |node: &serde_json::Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let seen = first.wait_for(&format!("node/{NODE}"), SOON, is_ready)?;
    let runtime = seen["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
    ensure!(runtime.starts_with("containerd://"), "{runtime}");
    let mut proxy = second.program(&upstream.program("kube-proxy"));
    proxy.args(["--kubeconfig=/etc/kubernetes/kubelet.conf", "--proxy-mode=nftables", "--hostname-override", NODE]);
    node.add("kube-proxy", &mut proxy)?;
    pod(first, "there", NODE, &STARTED)?;
    // The API server believes its certificate: the cluster's CA has signed it.
    is_reached(first, "there")?;
    first.kubectl(&["expose", "pod", "there", "--port=80"])?;
    let address = first.get("service/there")?["spec"]["clusterIP"].as_str().context("an address")?.to_owned();
    let host = second.host.as_ref().context("a host")?;
    eventually(SOON, || {
        ensure!(host.sh(&format!("curl -sS --max-time 3 http://{address}/"))? == "hello\n", "by upstream's kube-proxy");
        Ok(())
    })?;
    // DNS is answered on each node; on this one by our program alone.
    let asked = first.get("-n kube-system service/kube-dns")?;
    let asked = asked["spec"]["clusterIP"].as_str().context("an address")?;
    host.sh(&format!("ip address add {asked}/32 dev lo"))?;
    let mut dns = second.program(&binary());
    dns.args(["kube-dns", "--kubecfg-file=/etc/kubernetes/kubelet.conf", "--dns-bind-address", asked]);
    node.add("kube-dns", &mut dns)?;
    eventually(SOON, || {
        let found = first.kubectl(&["exec", "there", "--", "nslookup", "there.default.svc.cluster.local"])?;
        ensure!(found.contains(&address), "{found}");
        Ok(())
    })?;
    first.kubectl(&["delete", "pod", "there", "--now"]).map(drop)
}
