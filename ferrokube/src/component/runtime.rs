//! `ferrokube container-runtime`: our container runtime alone, for any kubelet. Its pods are connected as the
//! configuration of `/etc/cni/net.d` says, by the built-in plugins or by programs of `/opt/cni/bin`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use cni::list::Invoker;
use pod_network::Configured;

use super::{parse, until_signal};
use crate::fault::Fault;

/// The container runtime, on a CRI socket
#[derive(Debug, Parser)]
#[command(name = "container-runtime")]
struct Flags {
    /// The CRI socket
    #[arg(long, default_value = "/run/ferrokube/container-runtime.sock", value_name = "PATH")]
    address: PathBuf,
    /// Images and containers
    #[arg(long, default_value = "/var/lib/ferrokube/container-runtime", value_name = "DIR")]
    root: PathBuf,
    /// Sockets and namespaces
    #[arg(long, default_value = "/run/ferrokube/container-runtime", value_name = "DIR")]
    state: PathBuf,
    /// Where the pod network is configured
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIR")]
    cni_conf_dir: PathBuf,
    /// Where CNI plugins are looked for that aren't built in
    #[arg(long, value_delimiter = ',', default_value = "/opt/cni/bin", value_name = "DIR")]
    cni_bin_dir: Vec<PathBuf>,
    /// Group of pods whose kubelet names none
    #[arg(long, default_value = "/ferrokube", value_name = "PATH")]
    cgroup_root: String,
    /// Mirrors, CAs and credentials of registries, a file as k3s has it
    #[arg(long, default_value = "/etc/ferrokube/registries.yaml", value_name = "FILE")]
    registries: PathBuf,
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[]);
    crate::preflight::root("container-runtime")?;
    let mut config = runtime::Config::new(flags.root, &flags.state);
    config.socket = flags.address;
    config.cgroup_root = flags.cgroup_root;
    runtime::images::Registries::read(&flags.registries).and_then(|all| all.check()).map_err(Fault::failed)?;
    config.registries = Some(flags.registries);
    let invoker = Invoker { plugin_dirs: flags.cni_bin_dir, cache_dir: flags.state.join("cni"), builtin: true };
    let network = Arc::new(Configured { conf_dir: flags.cni_conf_dir, invoker });
    until_signal(|shutdown| async move {
        runtime::run(config, network, shutdown).await.map_err(|e| Fault::failed(e.to_string()).into())
    })
}
