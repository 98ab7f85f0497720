//! The built-in pod network as the runtime wants it: made when the node's range of addresses is decided, known again
//! after a restart. I/O: keeps the range in a file beside the network's records.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cni::{Network, Pod, PortMapping, Prefix, Protocol};
use parking_lot::RwLock;
use runtime::{HostPort, PodNet, PodNetwork};

use crate::config::{Host, RUN_ROOT, lock_host};

/// The interface that pods find inside.
const IFNAME: &str = "eth0";

/// See the module's head.
pub struct BridgeNetwork {
    base: cni::Config,
    services: Prefix,
    range_file: PathBuf,
    network: RwLock<Option<Arc<Network>>>,
}

/// What the cluster's pod network is called and where it keeps its records; `range` is the node's share.
pub fn config(host: &Host, range: Prefix) -> cni::Config {
    let all = Prefix::new(host.cluster.pod_cidr.address, host.cluster.pod_cidr.bits);
    cni::Config {
        bridge: host.bridge(),
        table: format!("{}-pods", host.tag()),
        subnet: range,
        gateway: None,
        cluster_ranges: vec![all],
        // A cluster of this host alone.
        only_here: vec![all],
        masquerade: true,
        mtu: None,
        state_dir: host.data_dir.join("cni"),
        settings_dir: RUN_ROOT.into(),
    }
}

impl BridgeNetwork {
    /// Takes up the range of a former life, if there was one.
    pub fn new(host: &Host) -> BridgeNetwork {
        let all = Prefix::new(host.cluster.pod_cidr.address, host.cluster.pod_cidr.bits);
        let range_file = host.node_range_file();
        let services = Prefix::new(host.cluster.service_cidr.address, host.cluster.service_cidr.bits);
        let network = BridgeNetwork { base: config(host, all), services, range_file, network: RwLock::new(None) };
        if let Ok(range) = std::fs::read_to_string(&network.range_file) {
            network.set_pod_cidr(range.trim());
        }
        network
    }

    fn get(&self) -> Result<Arc<Network>, String> {
        self.network.read().clone().ok_or_else(|| "the node has no range of pod addresses (podCIDR) yet".to_owned())
    }
}

impl PodNetwork for BridgeNetwork {
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, String> {
        let ports: Vec<PortMapping> = pod.ports.iter().map(port_mapping).collect();
        let request = Pod {
            container_id: &pod.id,
            netns: &pod.netns,
            ifname: IFNAME,
            namespace: &pod.namespace,
            name: &pod.name,
            ports: &ports,
        };
        let result = self.get()?.add(&request).map_err(|e| e.to_string())?;
        Ok(result.ip().into_iter().collect())
    }

    fn del(&self, pod: &PodNet) -> Result<(), String> {
        // Without a range no pod was ever connected.
        let Ok(network) = self.get() else { return Ok(()) };
        network.del(&pod.id, IFNAME).map_err(|e| e.to_string())
    }

    fn keep_only(&self, pods: &[String]) -> Result<(), String> {
        let Ok(network) = self.get() else { return Ok(()) };
        let valid: Vec<(&str, &str)> = pods.iter().map(|id| (id.as_str(), IFNAME)).collect();
        let freed = network.gc(&valid).map_err(|e| e.to_string())?;
        if !freed.is_empty() {
            tracing::info!(addresses = freed.len(), "freed addresses of pods that are gone");
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.get()?.status().map_err(|e| e.to_string())
    }

    fn set_pod_cidr(&self, cidr: &str) {
        let Ok(subnet) = cidr.parse::<Prefix>() else {
            return tracing::error!(cidr, "the node's podCIDR is no range");
        };
        if self.network.read().as_ref().is_some_and(|n| n.config().subnet == subnet) {
            return;
        }
        // Another cluster's reset may be giving the host its settings back.
        let _lock = lock_host();
        match Network::new(cni::Config { subnet, ..self.base.clone() }) {
            Ok(network) => {
                if let Err(error) = network.route_services(self.services) {
                    tracing::warn!(%error, "Services may not be reachable from this host itself");
                }
                let _ = crate::config::write_private(&self.range_file, cidr.as_bytes());
                *self.network.write() = Some(Arc::new(network));
            }
            Err(error) => tracing::error!(%error, cidr, "the pod network could not be made"),
        }
    }
}

/// A port of the host as CNI writes it.
pub fn port_mapping(port: &HostPort) -> PortMapping {
    let protocol = match port.protocol {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    PortMapping { host_port: port.host_port, container_port: port.container_port, protocol, host_ip: port.host_ip }
}
