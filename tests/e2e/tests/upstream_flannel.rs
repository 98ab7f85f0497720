//! A node of upstream's flannel (`tests/flannel`, made of its own packages) and one of ours in the same network: leases that
//! either writes are honoured by the other, and packets flow both ways, by each backend and with both subnet managers. Built
//! with the Go toolchain, which takes minutes: asked for by `FERROKUBE_TEST_FULL`, which `cargo xtask test --full` sets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Host, Own, Running, Signal, binary, eventually, output};

use crate::envtest::go;
use crate::flannel::{SOON, told};
use crate::two_hosts::{FIRST, SECOND, up_at, wire};

pub const TESTS: &[Test] = &[
    ("upstreams_flannel_and_ours_share_leases_in_etcd", in_etcd),
    ("upstreams_flannel_is_a_node_of_a_cluster_of_ours", of_nodes),
];

/// Where upstream's node is.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../flannel");
const ASKED: &str = "FERROKUBE_TEST_FULL";
const BACKENDS: [&str; 3] = ["host-gw", "vxlan", "udp"];
/// What upstream's node is called, and its range.
const THEIRS: &str = "theirs";
const RANGE: &str = "10.42.77.0/24";

/// Upstream's node; none where nobody asks for it, or there is no Go.
fn build(dir: &Path) -> Result<Option<PathBuf>> {
    let Some(go) = go().filter(|_| std::env::var_os(ASKED).is_some()) else {
        println!("    skipped: {ASKED} is not set, or there is no Go toolchain");
        return Ok(None);
    };
    fs::create_dir_all(dir)?;
    let program = dir.join("upstream-flannel");
    if !program.exists() {
        // Its udp backend is partly in C.
        let mut command = Command::new(go);
        command.args(["build", "-o"]).arg(&program).arg(".").current_dir(MODULE).env("CGO_ENABLED", "1");
        output(&mut command, "")?.ok()?;
    }
    Ok(Some(program))
}

/// The host has this address for its pods, as CNI would for the first one.
fn bridge(host: &Host, subnet: &str) -> Result<()> {
    host.sh(&format!("ip link add pods type bridge; ip address add {subnet} dev pods; ip link set pods up")).map(drop)
}

/// Small packets and long ones come back.
fn asks(host: &Host, from: &str, to: &str) -> Result<()> {
    for bytes in ["56", "1400", "4000"] {
        eventually(SOON, || host.sh(&format!("ping -c 1 -W 1 -s {bytes} -I {from} {to}")).map(drop))?;
    }
    Ok(())
}

fn address(subnet: &str) -> &str {
    subnet.split('/').next().unwrap_or_default()
}

fn in_etcd(cluster: &Cluster) -> Result<()> {
    let dir = cluster.dir.join("upstream");
    let Some(upstream) = build(&dir)? else { return Ok(()) };
    let hosts = [Host::new()?, Host::new()?];
    hosts[0].sh(&format!("ip link add wire type veth peer name wire netns {}", hosts[1].pid()))?;
    for (host, address) in hosts.iter().zip([FIRST, SECOND]) {
        host.sh(&format!(
            "ip address add {address}/24 dev wire; ip link set wire up; sysctl -qw net.ipv4.ip_forward=1"
        ))?;
    }
    let url = format!("http://{FIRST}:2379");
    let mut etcd = hosts[0].command(binary());
    etcd.arg("etcd").arg("--data-dir").arg(dir.join("etcd"));
    etcd.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    let _etcd = Running::start(&mut etcd)?;
    for backend in BACKENDS {
        one_backend(&hosts, &upstream, &url, backend, &dir.join(backend)).with_context(|| backend.to_owned())?;
    }
    Ok(())
}

fn one_backend(hosts: &[Host; 2], upstream: &Path, url: &str, backend: &str, dir: &Path) -> Result<()> {
    let prefix = format!("/{backend}/network");
    let conf = format!(r#"{{"Network": "10.5.0.0/16", "Backend": {{"Type": "{backend}"}}}}"#);
    eventually(SOON, || {
        let mut etcdctl = hosts[0].command("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", url, "put", &format!("{prefix}/config"), &conf]);
        output(&mut etcdctl, "")?.ok()
    })?;
    let (ours_file, theirs_file) = (dir.join("ours/subnet.env"), dir.join("theirs/subnet.env"));
    let mut ours = hosts[0].command(binary());
    ours.args(["flannel", "-iface=wire", "--etcd-endpoints", url, "--etcd-prefix", &prefix]);
    let ours = Running::start(ours.arg("--subnet-file").arg(&ours_file))?;
    let mut theirs = hosts[1].command(upstream);
    theirs.args(["-iface=wire", "-etcd-endpoints", url, "-etcd-prefix", &prefix]);
    let theirs = Running::start(theirs.arg("-subnet-file").arg(&theirs_file))?;
    let said = || format!("ours: {}\ntheirs: {}", ours.said(), theirs.said());
    let subnets = [told(&ours_file).with_context(said)?, told(&theirs_file).with_context(said)?];
    for (host, subnet) in hosts.iter().zip(&subnets) {
        bridge(host, subnet)?;
    }
    let mtu = |file: &Path| -> Result<String> {
        let text = fs::read_to_string(file)?;
        text.lines().find(|line| line.starts_with("FLANNEL_MTU")).map(str::to_owned).context(text.clone())
    };
    ensure!(mtu(&ours_file)? == mtu(&theirs_file)?, "{} and {}", mtu(&ours_file)?, mtu(&theirs_file)?);
    let [here, there] = subnets.each_ref().map(|subnet| address(subnet));
    asks(&hosts[0], here, there).with_context(said)?;
    asks(&hosts[1], there, here).with_context(said)?;
    for mut flannel in [ours, theirs] {
        flannel.signal(Signal::TERM)?;
        flannel.end(SOON)?;
    }
    for host in hosts {
        host.sh("ip link del pods; ip route flush proto 70; ip link del flannel.1 2>/dev/null || true")?;
    }
    Ok(())
}

fn of_nodes(cluster: &Cluster) -> Result<()> {
    let Some(upstream) = build(&cluster.dir.join("upstream"))? else { return Ok(()) };
    for backend in BACKENDS {
        let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
        wire(&first, &second)?;
        up_at(&first, &["--flannel-backend", backend])?;
        beside(&first, &second, &upstream).with_context(|| backend.to_owned())?;
    }
    Ok(())
}

fn beside(first: &Own, second: &Own, upstream: &Path) -> Result<()> {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": THEIRS},
        "spec": {"podCIDR": RANGE, "podCIDRs": [RANGE]}});
    first.apply(&node.to_string())?;
    // As upstream's manifest mounts it, out of the ConfigMap that the cluster has.
    let conf = first.get("-n kube-flannel configmap/kube-flannel-cfg")?;
    let (conf_file, file) = (second.dir.join("net-conf.json"), second.dir.join("subnet.env"));
    fs::write(&conf_file, conf["data"]["net-conf.json"].as_str().context("a net-conf")?)?;
    let kubeconfig = fs::read_to_string(first.kubeconfig())?.replace("127.0.0.1", FIRST);
    let kubeconfig_file = second.dir.join("kubeconfig");
    fs::write(&kubeconfig_file, kubeconfig)?;
    let host = second.host.as_ref().context("a host")?;
    host.sh("sysctl -qw net.ipv4.ip_forward=1")?;
    let mut theirs = second.program(upstream);
    theirs.arg("-iface=wire").arg("-kubeconfig-file").arg(&kubeconfig_file).arg("-net-config-path").arg(&conf_file);
    theirs.arg("-subnet-file").arg(&file).env("NODE_NAME", THEIRS);
    let theirs = Running::start(&mut theirs)?;
    let subnet = told(&file).with_context(|| theirs.said())?;
    bridge(host, &subnet)?;
    first.import_busybox(BUSYBOX)?;
    first.kubectl(&["run", "here", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    let pod = first.ready("here")?["status"]["podIP"].as_str().context("an address")?.to_owned();
    let there = address(&subnet);
    for bytes in ["56", "1400", "4000"] {
        let ping = ["exec", "here", "--", "ping", "-c", "1", "-W", "1", "-s", bytes, there];
        eventually(SOON, || first.kubectl(&ping).map(drop)).with_context(|| theirs.said())?;
    }
    asks(host, there, &pod)?;
    // It leaves: nothing leads there any more.
    theirs.signal(Signal::TERM)?;
    first.kubectl(&["delete", "node", THEIRS])?;
    let near = first.host.as_ref().context("a host")?;
    eventually(Duration::from_secs(5), || {
        let routes = near.sh("ip route")?;
        ensure!(!routes.contains(RANGE), "{routes}");
        Ok(())
    })
}
