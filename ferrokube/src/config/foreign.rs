//! What is another way in a cluster whose control plane isn't ours: kubeadm's, or one that speaks as kubeadm's. Learned by a
//! node when it joins (`joining::discovery`), kept with what it has of its cluster, brought up to date at each start
//! (`cluster::foreign`): what is left to the cluster, and no more. Pure.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Components of a node that run as pods in such a cluster.
pub const PODS_THERE: [&str; 2] = ["kube-proxy", "kube-dns"];

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// Whom its pods ask for names (`clusterDNS`).
    pub cluster_dns: Vec<IpAddr>,
    /// Its kubelets ask for the certificates that they serve with (`serverTLSBootstrap`).
    pub serving_certificates: bool,
    /// Components that are left to the cluster: names of the table of components.
    pub left: Vec<String>,
}

impl Foreign {
    /// As it is before the cluster was asked what its nodes may.
    pub fn new(cluster_dns: Vec<IpAddr>, serving_certificates: bool) -> Foreign {
        Foreign { cluster_dns, serving_certificates, left: PODS_THERE.map(str::to_owned).to_vec() }
    }
}
