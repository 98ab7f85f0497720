//! The table of all that can be said of a cluster: which name a setting has in `--config FILE` and in `cluster.json`,
//! which flag says it, and whether it is the cluster's or the host's. Pure. Called by [`super::file`] for the names that
//! are allowed, by [`super::differs()`] for the words of what differs.

/// Whose a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Equal on all hosts: a field of [`super::Cluster`].
    Cluster,
    /// Of one host: a field of [`super::Host`].
    Host,
}

/// A row of [`SETTINGS`].
#[derive(Debug)]
pub struct Setting {
    /// The field of the file.
    pub field: &'static str,
    /// The field of `cluster.json`.
    pub key: &'static str,
    /// Its flag; none of what only the file can say.
    pub flag: Option<&'static str>,
    pub scope: Scope,
    /// Whether it is an option: of a type of its own ([`super::Options`]), and called the same in both files.
    pub is_option: bool,
}

const fn flag(field: &'static str, key: &'static str, flag: &'static str, scope: Scope) -> Setting {
    Setting { field, key, flag: Some(flag), scope, is_option: false }
}

const fn filed(field: &'static str, key: &'static str, scope: Scope) -> Setting {
    Setting { field, key, flag: None, scope, is_option: false }
}

const fn option(field: &'static str, flag: &'static str, scope: Scope) -> Setting {
    Setting { field, key: field, flag: Some(flag), scope, is_option: true }
}

use Scope::{Cluster, Host};

/// Every setting, in the order in which they are listed to people.
pub const SETTINGS: &[Setting] = &[
    flag("apiPort", "apiPort", "--api-port", Cluster),
    flag("podCIDR", "podCidr", "--pod-cidr", Cluster),
    flag("serviceCIDR", "serviceCidr", "--service-cidr", Cluster),
    filed("clusterDomain", "clusterDomain", Cluster),
    filed("nodeName", "nodeName", Host),
    filed("nodeIP", "nodeIp", Host),
    flag("openFirewall", "openFirewall", "--open-firewall", Host),
    flag("hardened", "hardened", "--hardened", Cluster),
    option("tlsSAN", "--tls-san", Cluster),
    option("featureGates", "--feature-gates", Cluster),
    option("etcdServers", "--etcd-servers", Cluster),
    option("kubeApiserverArg", "--kube-apiserver-arg", Cluster),
    option("kubeControllerManagerArg", "--kube-controller-manager-arg", Cluster),
    option("kubeSchedulerArg", "--kube-scheduler-arg", Cluster),
    option("etcdArg", "--etcd-arg", Cluster),
    option("disable", "--disable", Cluster),
    option("loadBalancerPool", "--load-balancer-pool", Cluster),
    option("network", "--network", Cluster),
    option("flannelBackend", "--flannel-backend", Cluster),
    option("flannelSubnetManager", "--flannel-subnet-manager", Cluster),
    option("flannelEtcdEndpoints", "--flannel-etcd-endpoints", Cluster),
    option("flannelEtcdPrefix", "--flannel-etcd-prefix", Cluster),
    option("flannelVNI", "--flannel-vni", Cluster),
    option("bindAddress", "--bind-address", Host),
    option("disableNode", "--disable-node", Host),
    option("etcdCAFile", "--etcd-cafile", Host),
    option("etcdCertFile", "--etcd-certfile", Host),
    option("etcdKeyFile", "--etcd-keyfile", Host),
    option("nodeLabel", "--node-label", Host),
    option("nodeTaint", "--node-taint", Host),
    option("kubeletArg", "--kubelet-arg", Host),
    option("kubeProxyArg", "--kube-proxy-arg", Host),
    option("flannelArg", "--flannel-arg", Host),
    option("registries", "--registries", Host),
    option("images", "--images", Host),
    option("apply", "--apply", Host),
    option("credentials", "--credentials", Host),
];

/// The rows of options.
pub fn options() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.is_option)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::config::options::tests::all;

    fn keys(value: &impl serde::Serialize) -> BTreeSet<String> {
        let Value::Object(fields) = serde_json::to_value(value).expect("JSON") else { panic!("an object") };
        fields.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn the_table_says_whose_each_field_is() {
        let mut host = crate::config::tests::host("/d".as_ref());
        (host.cluster.options, host.options) = (all().cluster, all().host);
        let of = |scope| SETTINGS.iter().filter(move |s| s.scope == scope).map(|s| s.key.to_owned());
        // Not settings: they are said by `--name` and `--data-dir`, and follow from what is on the host already.
        let cluster: BTreeSet<_> = of(Cluster).chain(["name".to_owned()]).collect();
        assert_eq!(keys(&host.cluster), cluster);
        let own: BTreeSet<_> = of(Host).chain(["dataDir", "slot"].map(str::to_owned)).collect();
        assert_eq!(keys(&host).difference(&cluster).cloned().collect::<BTreeSet<_>>(), own);
    }
}
