//! What is equal on all hosts of a cluster: its name, its ranges of addresses, its domain, the port of its API, what its
//! control plane is told. Knows nothing of a host: no directory, no address, no number of a slot ([`super::Host`] does).
//! A host that joins takes these as they are. Pure.

use std::net::IpAddr;

use meta::{Prefix, Ranges};
use serde::{Deserialize, Serialize};

use super::{ClusterOptions, Foreign, cidr, list};

/// See the module's head. On the disk it is a part of the host's `cluster.json`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    /// The port of the API server, on every host that has one.
    pub api_port: u16,
    #[serde(deserialize_with = "cidr::read_pods")]
    pub pod_cidr: Ranges,
    /// Of the same families as the pods' in the same order ([`cidr::fit`]).
    #[serde(deserialize_with = "cidr::read_services")]
    pub service_cidr: Ranges,
    pub cluster_domain: String,
    /// `--hardened`; not in files of older versions.
    #[serde(default)]
    pub hardened: bool,
    /// What is another way, where the control plane isn't ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
    #[serde(flatten)]
    pub options: ClusterOptions,
}

impl Cluster {
    /// Whether its store is an etcd cluster, which other servers may have, too.
    pub fn has_etcd_elsewhere(&self) -> bool {
        !list(&self.options.etcd_servers).is_empty()
    }

    /// Whether pods and Services have IPv6 addresses.
    pub fn has_ipv6(&self) -> bool {
        self.pod_cidr.family(true).is_some()
    }

    /// Whether pods and Services have addresses of this one's family.
    pub fn has_family(&self, ip: IpAddr) -> bool {
        self.pod_cidr.family(ip.is_ipv6()).is_some()
    }

    /// Whether these ranges are its own with one of the other family behind each: what a cluster that is there may become.
    pub fn gains(&self, pods: &Ranges, services: &Ranges) -> bool {
        let gains = |has: &Ranges, then: &Ranges| {
            has.second().is_none() && then.second().is_some() && then.primary() == has.primary()
        };
        gains(&self.pod_cidr, pods) && gains(&self.service_cidr, services)
    }

    /// Whether nodes are reached by IPv6 first: what listens on every address does so by both families then.
    pub fn is_ipv6_first(&self) -> bool {
        self.pod_cidr.primary().is_ipv6()
    }

    /// The address of the `kubernetes` Service, which has the first family as upstream's, and the same of the other: the
    /// first of each range.
    pub fn first_of_services(&self) -> Vec<IpAddr> {
        self.service_cidr.iter().map(|range| service_ip(range, 1)).collect()
    }

    /// Whom pods ask for names first.
    pub fn dns_ip(&self) -> IpAddr {
        self.dns_ips().first().copied().unwrap_or_else(|| service_ip(self.service_cidr.primary(), 10))
    }

    /// Whom pods ask for names, of each family: the DNS Service, or what another control plane says.
    pub fn dns_ips(&self) -> Vec<IpAddr> {
        match &self.foreign {
            Some(foreign) => foreign.cluster_dns.clone(),
            None => self.tenth_of_services(),
        }
    }

    /// The address of the DNS Service, of each family: the tenth of the range, as kubeadm has it.
    pub fn tenth_of_services(&self) -> Vec<IpAddr> {
        self.service_cidr.iter().map(|range| service_ip(range, 10)).collect()
    }

    /// Whether a component of a node is the cluster's own business, and not run by ours.
    pub fn leaves(&self, component: &str) -> bool {
        self.foreign.as_ref().is_some_and(|foreign| foreign.left.iter().any(|left| left == component))
    }

    /// The issuer that service-account tokens name: upstream's default for this cluster domain.
    pub fn issuer(&self) -> String {
        format!("https://kubernetes.default.svc.{}", self.cluster_domain)
    }
}

/// One of the first addresses of Services, of which every range has 256 at least.
fn service_ip(range: Prefix, n: u128) -> IpAddr {
    range.nth(n).unwrap_or(range.addr)
}
