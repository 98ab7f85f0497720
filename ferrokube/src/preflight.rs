//! What must be true of this host before anything is started. Each check ends in one sentence that says what to do;
//! nothing has been made when it fails. I/O: reads /proc and binds ports for a moment.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::Result;

use crate::config::Cluster;
use crate::fault::Fault;

/// Fails unless the caller is root.
pub fn root(command: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let sentence = format!("`ferrokube {command}` needs root to make namespaces, mounts and links: try sudo");
    Err(Fault::failed(sentence).into())
}

/// Everything else that a start needs.
pub fn check(cluster: &Cluster) -> Result<()> {
    kernel()?;
    data_dir(cluster)?;
    ports(cluster)?;
    // A cluster that ran before is in its own range: its bridge is still there.
    if cluster.data_dir.join("node-pod-cidr").exists() { Ok(()) } else { ranges(cluster) }
}

fn kernel() -> Result<()> {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|l| l.ends_with("\toverlay")) {
        // A kernel that has it as a module lists it only once it is loaded; a mount loads it.
        let module = fs::read_dir("/lib/modules").is_ok_and(|mut d| d.next().is_some());
        if !module {
            return Err(lacks("overlayfs", "CONFIG_OVERLAY_FS").into());
        }
    }
    let namespaces = [
        ("mnt", "CONFIG_NAMESPACES"),
        ("pid", "CONFIG_PID_NS"),
        ("net", "CONFIG_NET_NS"),
        ("ipc", "CONFIG_IPC_NS"),
        ("uts", "CONFIG_UTS_NS"),
    ];
    for (name, option) in namespaces {
        if !Path::new("/proc/self/ns").join(name).exists() {
            return Err(lacks(&format!("{name} namespaces"), option).into());
        }
    }
    if linux::cgroup::Cgroups::detect().is_err() {
        let sentence = "no cgroup hierarchy with cpu, memory and pids is mounted on /sys/fs/cgroup: mount cgroup2 \
            there, or boot with systemd.unified_cgroup_hierarchy=1 (Raspberry Pi: cgroup_enable=memory)";
        return Err(Fault::failed(sentence).into());
    }
    Ok(())
}

fn lacks(what: &str, option: &str) -> Fault {
    Fault::failed(format!("this kernel lacks {what}: use one that is built with {option}"))
}

/// A directory that held a cluster and lost a part must not be started over silently.
fn data_dir(cluster: &Cluster) -> Result<()> {
    let dir = &cluster.data_dir;
    let existed = dir.join("cluster.json").exists();
    let (store, keys) = (dir.join("etcd").exists(), dir.join("pki/ca.key").exists());
    if existed && store != keys {
        let lost = if store { "pki/ca.key" } else { "etcd" };
        let sentence = format!(
            "{} is half removed ({lost} is missing): restore it from a backup, or `ferrokube reset --name {}`",
            dir.display(),
            cluster.name
        );
        return Err(Fault::failed(sentence).into());
    }
    if !existed && fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
        let sentence =
            format!("{} holds files that aren't a cluster's: empty it, or choose another --data-dir", dir.display());
        return Err(Fault::failed(sentence).into());
    }
    Ok(())
}

fn ports(cluster: &Cluster) -> Result<()> {
    let tcp = [
        (cluster.api_port, "the API server", "--api-port"),
        (cluster.etcd_port(), "etcd", "--name"),
        (cluster.kubelet_port(), "the kubelet", "--name"),
        (cluster.port(10256), "kube-proxy's health", "--name"),
        (cluster.port(10257), "kube-controller-manager's health", "--name"),
        (cluster.port(10259), "kube-scheduler's health", "--name"),
    ];
    for (port, whose, flag) in tcp {
        if let Err(e) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            let hint = if flag == "--api-port" { "choose another with --api-port, or stop" } else { "stop" };
            let sentence = format!("port {port} of {whose} can't be used ({e}): {hint} what listens there");
            return Err(Fault::failed(sentence).into());
        }
    }
    Ok(())
}

/// The host must not be in one of the cluster's ranges already.
fn ranges(cluster: &Cluster) -> Result<()> {
    for (range, flag) in [(cluster.pod_cidr, "--pod-cidr"), (cluster.service_cidr, "--service-cidr")] {
        let Ok(probe) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { continue };
        // Connecting a datagram socket sends nothing: it asks the kernel for the route and its source address.
        let source = probe.connect((range.nth(2), 9)).and_then(|()| probe.local_addr()).map(|a| a.ip());
        if let Ok(std::net::IpAddr::V4(source)) = source
            && range.contains(source)
        {
            let sentence = format!("this host is in {range} already ({source}): choose another range with {flag}");
            return Err(Fault::failed(sentence).into());
        }
    }
    Ok(())
}

/// The address by which others reach this host: the one the default route uses, or loopback.
pub fn node_ip(cluster: &Cluster) -> Ipv4Addr {
    if let Some(ip) = cluster.node_ip {
        return ip;
    }
    let source = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|probe| {
        probe.connect((Ipv4Addr::new(192, 88, 99, 1), 9))?;
        probe.local_addr()
    });
    match source.map(|a| a.ip()) {
        Ok(std::net::IpAddr::V4(ip)) => ip,
        _ => Ipv4Addr::LOCALHOST,
    }
}
