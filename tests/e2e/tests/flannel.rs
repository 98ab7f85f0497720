//! flannel alone, as people start upstream's: on two hosts, with leases in our etcd, by each backend. It is asked for its
//! own health through the network that it makes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::runner::Test;
use testkit::{Cluster, Host, Running, Signal, binary, eventually, output};

pub const TESTS: &[Test] = &[
    ("hosts_reach_each_other_by_flannel", by_flannel),
    ("flannel_tells_of_its_host_in_the_nodes_annotations", in_annotations),
    ("flannel_tells_etcd_who_it_is", by_password),
];

const ADDRESSES: [&str; 2] = ["198.51.100.1", "198.51.100.2"];
pub const SOON: Duration = Duration::from_secs(20);

fn by_flannel(cluster: &Cluster) -> Result<()> {
    let hosts = [Host::new()?, Host::new()?];
    hosts[0].sh(&format!("ip link add wire type veth peer name wire netns {}", hosts[1].pid()))?;
    for (host, address) in hosts.iter().zip(ADDRESSES) {
        host.sh(&format!("ip address add {address}/24 dev wire; ip link set wire up"))?;
    }
    let url = format!("http://{}:2379", ADDRESSES[0]);
    let dir = cluster.dir.join("flannel");
    let data = dir.join("etcd").display().to_string();
    let mut etcd = hosts[0].command(binary());
    etcd.args(["etcd", "--data-dir", &data, "--listen-client-urls", &url, "--advertise-client-urls", &url]);
    let _etcd = Running::start(&mut etcd)?;
    for backend in ["host-gw", "vxlan", "udp"] {
        let prefix = format!("/{backend}/network");
        let conf = format!(r#"{{"Network": "10.5.0.0/16", "Backend": {{"Type": "{backend}"}}}}"#);
        eventually(SOON, || {
            let mut etcdctl = hosts[0].command("etcdctl");
            etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &url, "put", &format!("{prefix}/config"), &conf]);
            output(&mut etcdctl, "")?.ok()
        })?;
        one_backend(&hosts, &url, &prefix, &dir.join(backend)).with_context(|| backend.to_owned())?;
    }
    Ok(())
}

/// `flanneld`, with Go's single dashes and a part of its flags in the environment.
fn start(host: &Host, url: &str, prefix: &str, file: &Path) -> Result<Running> {
    let mut command = host.command(binary());
    command.args(["flannel", "-iface=wire", "-ip-masq", "--healthz-port", "8471", "--etcd-prefix", prefix]);
    command.arg("--subnet-file").arg(file).env("FLANNELD_ETCD_ENDPOINTS", url);
    Running::start(&mut command)
}

pub fn told(file: &Path) -> Result<String> {
    eventually(SOON, || {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let subnet = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET="));
        subnet.map(str::to_owned).with_context(|| text.clone())
    })
}

fn one_backend(hosts: &[Host; 2], url: &str, prefix: &str, dir: &Path) -> Result<()> {
    let file = |n: usize| dir.join(format!("{n}/subnet.env"));
    let mut running = Vec::new();
    for (n, host) in hosts.iter().enumerate() {
        running.push(start(host, url, prefix, &file(n))?);
    }
    let subnets = [told(&file(0))?, told(&file(1))?];
    for (host, subnet) in hosts.iter().zip(&subnets) {
        // As CNI would for the first pod.
        host.sh(&format!("ip link add pods type bridge; ip address add {subnet} dev pods; ip link set pods up"))?;
    }
    let asks = |from: usize, to: usize| {
        let address = subnets[to].split('/').next().unwrap_or_default();
        let own = subnets[from].split('/').next().unwrap_or_default();
        let page = format!("http://{address}:8471/readyz");
        eventually(SOON, || {
            let said = hosts[from].sh(&format!("curl -sS --max-time 2 --interface {own} {page}"))?;
            ensure!(said == "flannel is ready\n", "{said}");
            Ok(())
        })
    };
    asks(0, 1)?;
    asks(1, 0)?;
    running[1].signal(Signal::KILL)?;
    running[1].end(SOON)?;
    running[1] = start(&hosts[1], url, prefix, &file(1))?;
    asks(0, 1).with_context(|| running[1].said())?;
    asks(1, 0)?;
    ensure!(told(&file(1))? == subnets[1], "another subnet after a kill");
    for (host, mut flannel) in hosts.iter().zip(running) {
        flannel.signal(Signal::TERM)?;
        let (code, said) = flannel.end(SOON)?;
        ensure!(code == 0, "{code}: {said}");
        host.sh("ip link del pods; ip route flush proto 70; ip link del flannel.1 2>/dev/null || true")?;
    }
    Ok(())
}

/// As upstream's manifest runs it, against our API server.
fn in_annotations(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("annotations")?;
    own.run(&["up", "--network", "bridge"])?.ok()?;
    let node = own.get("node")?["items"][0]["metadata"]["name"].as_str().context("a node")?.to_owned();
    let record: Value = serde_json::from_slice(&fs::read(own.data_dir().join("cluster.json"))?)?;
    let (conf, file) = (own.dir.join("net-conf.json"), own.dir.join("flannel/subnet.env"));
    let network = record["podCidr"].as_str().context("podCidr")?;
    fs::write(&conf, format!(r#"{{"Network": "{network}", "Backend": {{"Type": "vxlan"}}}}"#))?;
    let host = own.host.as_ref().context("a host")?;
    let mut command = host.command(binary());
    command.args(["flannel", "--kube-subnet-mgr", "--iface=uplink"]).env("NODE_NAME", &node);
    command.arg("--kubeconfig-file").arg(own.kubeconfig());
    command.arg("--net-config-path").arg(conf).arg("--subnet-file").arg(&file);
    let mut flannel = Running::start(&mut command)?;
    let subnet = told(&file).with_context(|| flannel.said())?;
    let range = own.get(&format!("node {node}"))?["spec"]["podCIDR"].clone();
    ensure!(range == subnet.replace(".1/24", ".0/24"), "{range} is not {subnet}");
    eventually(SOON, || {
        let object = own.get(&format!("node {node}"))?;
        let annotations = &object["metadata"]["annotations"];
        ensure!(annotations["flannel.alpha.coreos.com/public-ip"] == "192.0.2.2", "{annotations:#}");
        let data = annotations["flannel.alpha.coreos.com/backend-data"].as_str().context("data")?;
        ensure!(data.contains("VtepMAC"), "{data}");
        let conditions = object["status"]["conditions"].as_array().context("conditions")?;
        let told = conditions.iter().find(|c| c["type"] == "NetworkUnavailable").context("no condition")?;
        ensure!(told["status"] == "False" && told["reason"] == "FlannelIsUp", "{told}");
        ensure!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{conditions:#?}");
        Ok(())
    })
    .with_context(|| flannel.said())?;
    flannel.signal(Signal::TERM)?;
    let (code, said) = flannel.end(SOON)?;
    ensure!(code == 0, "{code}: {said}");
    Ok(())
}

/// A real etcd that asks who one is.
fn by_password(cluster: &Cluster) -> Result<()> {
    const ETCD: &str = "/usr/bin/etcd";
    if !Path::new(ETCD).exists() {
        println!("    skipped: there is no {ETCD}");
        return Ok(());
    }
    let (host, dir) = (Host::new()?, cluster.dir.join("flannel-password"));
    let url = "http://192.0.2.2:2379";
    let mut etcd = host.command(ETCD);
    etcd.arg("--data-dir").arg(dir.join("etcd")).args(["--listen-client-urls", url, "--advertise-client-urls", url]);
    let _etcd = Running::start(etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380"]))?;
    let etcdctl = |args: &str| host.sh(&format!("ETCDCTL_API=3 etcdctl --endpoints {url} {args}"));
    let conf = r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}"#;
    eventually(SOON, || etcdctl(&format!("put /coreos.com/network/config '{conf}'")))?;
    etcdctl("user add root:secret")?;
    etcdctl("user grant-role root root")?;
    etcdctl("auth enable")?;
    let start = |password: &str, file: &Path| {
        let mut command = host.command(binary());
        command.args(["flannel", "--etcd-endpoints", url, "--etcd-username=root"]).arg("--subnet-file").arg(file);
        Running::start(command.env("FLANNELD_ETCD_PASSWORD", password))
    };
    let (wrong, right) = (dir.join("wrong.env"), dir.join("right.env"));
    let refused = start("guessed", &wrong)?;
    eventually(SOON, || {
        ensure!(refused.said().contains("authentication failed"), "{}", refused.said());
        Ok(())
    })?;
    ensure!(!wrong.exists() && !refused.said().contains("guessed"), "{}", refused.said());
    drop(refused);
    let flannel = start("secret", &right)?;
    let subnet = told(&right).with_context(|| flannel.said())?;
    let leases = etcdctl("--user root:secret get --prefix --keys-only /coreos.com/network/subnets")?;
    ensure!(leases.contains(&subnet.replace(".1/24", ".0-24")), "{leases}");
    Ok(())
}
