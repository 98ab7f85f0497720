//! `ferrokube kubelet`: over our container runtime or any other that speaks CRI.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use super::{LOGGING, connect, parse, until_signal};

/// The node agent
#[derive(Debug, Parser)]
#[command(name = "kubelet")]
struct Flags {
    /// How to reach the API server
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// Addresses that the node reports
    #[arg(long, value_delimiter = ',', value_name = "IP")]
    node_ip: Vec<IpAddr>,
    /// Socket of the container runtime
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock", value_name = "URL")]
    container_runtime_endpoint: String,
    /// Where pods' volumes are kept
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    root_dir: PathBuf,
    /// Directory of static pods
    #[arg(long, value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,
    /// Addresses of cluster DNS
    #[arg(long, value_delimiter = ',', value_name = "IP")]
    cluster_dns: Vec<IpAddr>,
    /// Zone of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "NAME")]
    cluster_domain: String,
    /// The host's resolver configuration
    #[arg(long, default_value = "/etc/resolv.conf", value_name = "FILE")]
    resolv_conf: PathBuf,
    /// Most pods on this node
    #[arg(long, default_value_t = 110, value_name = "N")]
    max_pods: u32,
    /// Group below which kubepods is
    #[arg(long, default_value = "/", value_name = "PATH")]
    cgroup_root: String,
    /// Address of the HTTPS API
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    address: IpAddr,
    /// Port of the HTTPS API
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    port: u16,
    /// Port of /healthz on loopback; 0 turns it off
    #[arg(long, default_value_t = 10248, value_name = "PORT")]
    healthz_port: u16,
    /// The server's certificate
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// The server's key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// CA whose client certificates are identities
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[&LOGGING]);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = flags.hostname_override.clone().unwrap_or_else(|| host.trim().to_lowercase());
    let mut config = kubelet::config::Config::new(&name);
    config.hostname_override = flags.hostname_override;
    config.node_ips = flags.node_ip;
    config.container_runtime_endpoint = flags.container_runtime_endpoint;
    config.root_dir = flags.root_dir;
    config.static_pod_path = flags.pod_manifest_path;
    config.cluster_dns = flags.cluster_dns;
    config.cluster_domain = flags.cluster_domain;
    config.resolv_conf = flags.resolv_conf;
    config.max_pods = flags.max_pods;
    config.cgroup_root = flags.cgroup_root;
    config.server.address = flags.address;
    config.server.port = flags.port;
    config.server.healthz_port = flags.healthz_port;
    config.server.tls_cert_file = flags.tls_cert_file;
    config.server.tls_private_key_file = flags.tls_private_key_file;
    config.server.client_ca_file = flags.client_ca_file;
    until_signal(|shutdown| async move {
        let client = connect(&flags.kubeconfig).await?;
        kubelet::daemon::run(config, client, shutdown).await?;
        Ok(())
    })
}
