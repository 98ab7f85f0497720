//! `ferrokube container-runtime`: our container runtime alone, for any kubelet. Its pods are connected as the
//! configuration of `/etc/cni/net.d` says, by the built-in plugins or by programs of `/opt/cni/bin`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use cni::list::{Attachment, Invoker, NetworkList};
use runtime::{LoopbackOnly, PodNet, PodNetwork};

use super::{parse, until_signal};
use crate::cluster::port_mapping;
use crate::fault::Fault;

/// The interface that pods find inside.
const IFNAME: &str = "eth0";

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
    let network = Arc::new(ConfiguredNetwork { conf_dir: flags.cni_conf_dir, invoker });
    until_signal(|shutdown| async move {
        runtime::run(config, network, shutdown).await.map_err(|e| Fault::failed(e.to_string()).into())
    })
}

/// The pod network that a directory of CNI configuration describes; read anew for each pod, as it may come late.
struct ConfiguredNetwork {
    conf_dir: PathBuf,
    invoker: Invoker,
}

impl ConfiguredNetwork {
    fn list(&self) -> Result<NetworkList, String> {
        let found = NetworkList::load(&self.conf_dir).map_err(|e| e.to_string())?;
        found.ok_or_else(|| format!("no network is configured in {}", self.conf_dir.display()))
    }

    fn with<T>(
        &self,
        pod: &PodNet,
        act: impl FnOnce(&NetworkList, &Attachment<'_>) -> Result<T, cni::Error>,
    ) -> Result<T, String> {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, pod.id, pod.uid
        );
        let ports: Vec<_> = pod.ports.iter().map(port_mapping).collect();
        let attachment =
            Attachment { container_id: &pod.id, netns: Some(&pod.netns), ifname: IFNAME, args: &args, ports: &ports };
        act(&self.list()?, &attachment).map_err(|e| e.to_string())
    }
}

impl PodNetwork for ConfiguredNetwork {
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, String> {
        // No list of plugins names it, yet every pod has it.
        LoopbackOnly.add(pod)?;
        let result = self.with(pod, |list, attachment| self.invoker.add(list, attachment))?;
        Ok(result.ip().into_iter().collect())
    }

    fn del(&self, pod: &PodNet) -> Result<(), String> {
        self.with(pod, |list, attachment| self.invoker.del(list, attachment))
    }

    fn keep_only(&self, pods: &[String]) -> Result<(), String> {
        let Ok(list) = self.list() else { return Ok(()) };
        let valid: Vec<_> = pods.iter().map(|id| (id.as_str(), IFNAME)).collect();
        self.invoker.gc(&list, &valid).map_err(|e| e.to_string())
    }

    fn ready(&self) -> Result<(), String> {
        self.invoker.status(&self.list()?).map_err(|e| e.to_string())
    }
}
