//! What connects the pods of a cluster, as it can be said and as it is kept. Pure. What the host's kernel decides where
//! nobody said anything is in `cluster::flannel`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Cluster, list};

/// The pod network: a row of `pod_network::NETWORKS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Pods of all hosts reach each other.
    Flannel,
    /// Pods of one host reach each other.
    Bridge,
}

/// How flannel gets packets to other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FlannelBackend {
    /// In the kernel's VXLAN links
    Vxlan,
    /// In datagrams of this program
    Udp,
    /// By routes alone: all hosts are on one link
    HostGw,
    /// In the kernel's WireGuard links: encrypted
    Wireguard,
    /// In the kernel's IPIP links: IPv4 alone
    Ipip,
}

/// Where flannel has which host which subnet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SubnetManager {
    /// In annotations of nodes
    Kube,
    /// In an etcd, --flannel-etcd-endpoints
    Etcd,
}

impl Network {
    /// As it is said.
    pub fn name(self) -> &'static str {
        match self {
            Network::Flannel => "flannel",
            Network::Bridge => "bridge",
        }
    }
}

impl FlannelBackend {
    /// As it is said, and as flannel's configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            FlannelBackend::Vxlan => "vxlan",
            FlannelBackend::Udp => "udp",
            FlannelBackend::HostGw => "host-gw",
            FlannelBackend::Wireguard => "wireguard",
            FlannelBackend::Ipip => "ipip",
        }
    }

    /// Whether pods' packets of IPv6 go by it.
    pub fn has_ipv6(self) -> bool {
        !matches!(self, FlannelBackend::Udp | FlannelBackend::Ipip)
    }
}

/// Upstream's `Port` of the backend udp, of the first VNI; clusters of one host have one each.
const UDP_PORT: u32 = 8285;
/// The same of the backend wireguard, which has one for each family.
const WIREGUARD_PORT: u32 = 51820;
/// So many clusters of a host have ports of their own.
const PORTS: u32 = 1000;
/// Upstream's `--etcd-prefix`.
const ETCD_PREFIX: &str = "/coreos.com/network";

impl Cluster {
    /// A file of an older version says nothing: its cluster has the bridge of one host.
    pub fn network(&self) -> Network {
        self.options.network.unwrap_or(Network::Bridge)
    }

    /// Whether it is in etcd that hosts have their ranges of pod addresses.
    pub fn leases_in_etcd(&self) -> bool {
        self.network() == Network::Flannel && self.options.flannel_subnet_manager == Some(SubnetManager::Etcd)
    }

    pub fn flannel_backend(&self) -> FlannelBackend {
        self.options.flannel_backend.unwrap_or(FlannelBackend::Vxlan)
    }

    /// The endpoints and the prefix of flannel's etcd.
    pub fn flannel_etcd(&self) -> (Vec<String>, String) {
        let prefix = self.options.flannel_etcd_prefix.clone().unwrap_or_else(|| ETCD_PREFIX.to_owned());
        (list(&self.options.flannel_etcd_endpoints).to_vec(), prefix)
    }

    /// The UDP ports that flannel listens on, where the configuration says them.
    pub fn flannel_ports(&self) -> Vec<u16> {
        let conf = self.net_conf();
        let named =
            ["Port", "ListenPort", "ListenPortV6"].into_iter().filter_map(|name| conf["Backend"][name].as_u64());
        named.filter_map(|port| u16::try_from(port).ok()).collect()
    }

    /// The network's configuration (net-conf), as upstream's flanneld reads it.
    pub fn net_conf(&self) -> Value {
        let vni = self.options.flannel_vni.unwrap_or(1);
        let backend = match self.flannel_backend() {
            FlannelBackend::Vxlan => json!({"Type": "vxlan", "VNI": vni}),
            FlannelBackend::Udp => json!({"Type": "udp", "Port": UDP_PORT + (vni - 1) % PORTS}),
            FlannelBackend::HostGw => json!({"Type": "host-gw"}),
            FlannelBackend::Wireguard => {
                let port = WIREGUARD_PORT + (vni - 1) % PORTS * 2;
                json!({"Type": "wireguard", "ListenPort": port, "ListenPortV6": port + 1})
            }
            FlannelBackend::Ipip => json!({"Type": "ipip"}),
        };
        let mut conf = json!({"Backend": backend});
        match self.pod_cidr.family(false) {
            Some(range) => conf["Network"] = range.to_string().into(),
            None => conf["EnableIPv4"] = false.into(),
        }
        if let Some(range) = self.pod_cidr.family(true) {
            conf["EnableIPv6"] = true.into();
            conf["IPv6Network"] = range.to_string().into();
        }
        conf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_upstreams_and_two_clusters_of_a_host_have_ports_of_their_own() {
        let mut cluster = crate::config::tests::host(std::path::Path::new("/d")).cluster;
        assert_eq!((cluster.network(), cluster.leases_in_etcd()), (Network::Bridge, false), "an older file");
        cluster.options.network = Some(Network::Flannel);
        let conf = |cluster: &Cluster| cluster.net_conf().to_string();
        assert_eq!(conf(&cluster), r#"{"Backend":{"Type":"vxlan","VNI":1},"Network":"10.42.0.0/16"}"#);
        cluster.options.flannel_vni = Some(2);
        cluster.options.flannel_backend = Some(FlannelBackend::Udp);
        assert_eq!(conf(&cluster), r#"{"Backend":{"Port":8286,"Type":"udp"},"Network":"10.42.0.0/16"}"#);
        assert_eq!(cluster.flannel_ports(), [8286]);
        cluster.options.flannel_backend = Some(FlannelBackend::Wireguard);
        assert_eq!(cluster.flannel_ports(), [51822, 51823]);
        cluster.options.flannel_vni = Some(1);
        assert_eq!(cluster.flannel_ports(), [51820, 51821], "upstream's");
        cluster.options.flannel_vni = Some((1 << 24) - 1);
        assert!(cluster.flannel_ports().len() == 2 && flannel::NetConf::parse(conf(&cluster).as_bytes()).is_ok());
        cluster.options.flannel_backend = Some(FlannelBackend::HostGw);
        let mut both = cluster.clone();
        both.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        let text = conf(&both);
        assert!(text.contains(r#""EnableIPv6":true,"IPv6Network":"fd42::/56""#), "{text}");
        let range =
            flannel::NetConf::parse(text.as_bytes()).expect("a configuration").v6.map(|v6| (v6.network, v6.len));
        assert_eq!(range, both.pod_cidr.second().map(|range| (range, 64)), "a node has a /64");
        both.pod_cidr = "fd42::/56".parse().expect("a range");
        let alone = flannel::NetConf::parse(conf(&both).as_bytes()).expect("a configuration");
        assert!(alone.v4.is_none() && alone.v6.is_some());
        let all = <FlannelBackend as clap::ValueEnum>::value_variants();
        assert_eq!(all.len(), 5);
        for backend in all {
            cluster.options.flannel_backend = Some(*backend);
            assert_eq!(cluster.net_conf()["Backend"]["Type"], backend.name());
            let read = flannel::NetConf::parse(conf(&cluster).as_bytes()).expect("a configuration");
            assert!(flannel::backend::Backend::of(&read).is_ok(), "{backend:?}");
        }
    }
}
