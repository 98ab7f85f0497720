//! A node alone under a control plane that shows nothing of ours, as kubeadm's: it has what that says to all kubelets, and the
//! families that its configuration says, from each start on. The control plane is of our own program, its ConfigMaps are made
//! kubeadm's; under upstream's programs an agent is in `upstream::joining`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::runner::Test;
use testkit::{Cluster, Own, Running, Signal, eventually};

use crate::two_families::{PODS, SECOND6, SERVICES, wired};
use crate::two_hosts::{FIRST, NODE, SECOND, SOON, ready, up_at};
use crate::upstream::private_folders;

pub const TESTS: &[Test] = &[("an_agent_follows_what_another_control_plane_says_to_its_nodes", follows)];

const UP: [&str; 6] = ["--network", "bridge", "--pod-cidr", "10.42.0.0/16", "--service-cidr", "10.43.0.0/16"];
const SAYS: &str = "maxPods: 7\nevictionHard: {memory.available: 64Mi}\nregistryPullQPS: 9\ncgroupDriver: systemd\n";

fn follows(cluster: &Cluster) -> Result<()> {
    let (first, second) = wired(cluster)?;
    private_folders(&second)?;
    up_at(&first, &UP)?;
    let record: Value = serde_json::from_slice(&std::fs::read(first.data_dir().join("cluster.json"))?)?;
    let server = format!("https://{FIRST}:{}", record["apiPort"]);
    let token = first.run(&["token", "create"])?.ok()?.trim().to_owned();
    // Who asks finds kubeadm's maps, and nothing that says that they are ours.
    first.kubectl(&["-n", "kube-system", "label", "configmap", "kubeadm-config", "app.kubernetes.io/managed-by-"])?;
    to_kubelets(&first, SAYS)?;
    let join = ["agent", "--server", &server, "--token", &token, "--node-name", NODE, "--node-ip", SECOND];
    let agent = Running::start(&mut second.command(&join))?;
    ready(&agent)?;
    let said = agent.said();
    ensure!(said.contains("the pod network is left to the cluster's add-on"), "{said}");
    let without = "fields of kube-system/kubelet-config that have no effect on this node: registryPullQPS";
    ensure!(said.lines().filter(|line| line.trim().ends_with(without)).count() == 1, "{said}");
    let node = first.get(&format!("node {NODE}"))?;
    ensure!(node["status"]["capacity"]["pods"] == "7", "{:#}", node["status"]["capacity"]);
    ensure!(addresses(&node) == [SECOND], "{:?}", addresses(&node));
    // Its administrator gives the cluster another family, and changes its mind about kubelets.
    let networking = format!("networking:\n  podSubnet: {PODS}\n  serviceSubnet: {SERVICES}\n");
    let map = json!({"data": {"ClusterConfiguration": networking}}).to_string();
    first.kubectl(&["-n", "kube-system", "patch", "configmap", "kubeadm-config", "-p", &map])?;
    to_kubelets(&first, "maxPods: 8\n")?;
    stop(&second, &agent)?;
    let agent = Running::start(&mut second.command(&["agent"]))?;
    ready(&agent)?;
    ensure!(!agent.said().contains("have no effect on this node"), "{}", agent.said());
    eventually(SOON, || {
        let node = first.get(&format!("node {NODE}"))?;
        ensure!(node["status"]["capacity"]["pods"] == "8", "{:#}", node["status"]["capacity"]);
        ensure!(addresses(&node) == [SECOND, SECOND6], "{:?}", addresses(&node));
        Ok(())
    })
    .with_context(|| agent.said())?;
    stop(&second, &agent)
}

fn addresses(node: &Value) -> Vec<String> {
    let all = node["status"]["addresses"].as_array().into_iter().flatten();
    let internal = all.filter(|address| address["type"] == "InternalIP");
    internal.filter_map(|address| Some(address["address"].as_str()?.to_owned())).collect()
}

/// What the cluster says to all kubelets, beside what ours says by itself.
fn to_kubelets(first: &Own, more: &str) -> Result<()> {
    let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nserverTLSBootstrap: true\n\
                clusterDNS: [10.43.0.10]\nclusterDomain: cluster.local\nstaticPodPath: /etc/kubernetes/manifests\n";
    let map = json!({"data": {"kubelet": format!("{head}{more}")}}).to_string();
    first.kubectl(&["-n", "kube-system", "patch", "configmap", "kubelet-config", "-p", &map]).map(drop)
}

fn stop(second: &Own, agent: &Running) -> Result<()> {
    agent.signal(Signal::TERM)?;
    eventually(Duration::from_secs(20), || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })
}
