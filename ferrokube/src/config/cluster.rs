//! What is equal on all hosts of a cluster: its name, its ranges of addresses, its domain, the port of its API, what its
//! control plane is told. Knows nothing of a host: no directory, no address, no number of a slot ([`super::Host`] does).
//! A host that joins takes these as they are. Pure.

use std::net::IpAddr;

use meta::Prefix;
use serde::{Deserialize, Serialize};

use super::{ClusterOptions, cidr, list};

/// See the module's head. On the disk it is a part of the host's `cluster.json`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    /// The port of the API server, on every host that has one.
    pub api_port: u16,
    #[serde(deserialize_with = "cidr::read")]
    pub pod_cidr: Prefix,
    #[serde(deserialize_with = "cidr::read")]
    pub service_cidr: Prefix,
    pub cluster_domain: String,
    /// `--hardened`; not in files of older versions.
    #[serde(default)]
    pub hardened: bool,
    #[serde(flatten)]
    pub options: ClusterOptions,
}

impl Cluster {
    /// Whether its store is an etcd cluster, which other servers may have, too.
    pub fn has_etcd_elsewhere(&self) -> bool {
        !list(&self.options.etcd_servers).is_empty()
    }

    /// The address of the `kubernetes` Service: the first of the range, as upstream has it.
    pub fn api_service_ip(&self) -> IpAddr {
        self.service_ip(1)
    }

    /// The address of the DNS Service: the tenth of the range, as kubeadm has it.
    pub fn dns_ip(&self) -> IpAddr {
        self.service_ip(10)
    }

    /// One of the first addresses of Services, of which every range has 256 at least.
    fn service_ip(&self, n: u128) -> IpAddr {
        self.service_cidr.nth(n).unwrap_or(self.service_cidr.addr)
    }

    /// The issuer that service-account tokens name: upstream's default for this cluster domain.
    pub fn issuer(&self) -> String {
        format!("https://kubernetes.default.svc.{}", self.cluster_domain)
    }
}
