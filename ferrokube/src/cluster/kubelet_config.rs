//! What a cluster that isn't ours says to all of its kubelets (`kube-system/kubelet-config`). kubeadm puts it into a node when
//! that joins, and again with `kubeadm upgrade node`; a node of ours reads it at each start, and keeps it for one while no API
//! server answers. What of it can't be had here is named in one sentence. I/O: asks the API server, a file.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kubelet::config::Config;

use crate::component;
use crate::config::{Foreign, Host, write_private};
use crate::joining::discovery;
use crate::joining::published::{KUBELET, KUBELET_CONFIG, SYSTEM};
use crate::yaml;

/// A start does not hang on an API server that is away: what was known last holds.
const PATIENCE: Duration = Duration::from_secs(5);
/// No ConfigMap holds more.
const LONGEST: u64 = 1 << 20;

/// Reads it anew. Whom pods ask for names, and how kubelets serve, is in what the node knows of its cluster.
pub async fn look(host: &Host, node: kube::Client, foreign: &mut Foreign) -> Result<()> {
    let maps = Api::<ConfigMap>::namespaced(node, SYSTEM);
    let map = tokio::time::timeout(PATIENCE, maps.get(KUBELET_CONFIG)).await.context("no answer in time")??;
    let text =
        map.data.and_then(|mut data| data.remove(KUBELET)).with_context(|| format!("it has no key {KUBELET}"))?;
    anyhow::ensure!(text.len() as u64 <= LONGEST, "it is longer than {LONGEST} bytes");
    let (cluster_dns, serving) = discovery::of_kubelets(&yaml::parse(&text).map_err(anyhow::Error::msg)?);
    foreign.serving_certificates = serving;
    if !cluster_dns.is_empty() {
        foreign.cluster_dns = cluster_dns;
    }
    write_private(&host.kubelet_config(), text.as_bytes())
}

fn kept(host: &Host) -> Option<String> {
    host.cluster.foreign.as_ref()?;
    let mut text = String::new();
    File::open(host.kubelet_config()).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Sets what the cluster says, as far as it can be had here.
pub fn follow(host: &Host, config: &mut Config) {
    if let Some(text) = kept(host) {
        // What can't be had was told when the node started.
        let _ = component::kubelet::follow(config, &text);
    }
}

/// What of it this node can't follow, in a sentence.
pub fn told(host: &Host) -> Option<String> {
    let text = kept(host)?;
    let place = format!("{SYSTEM}/{KUBELET_CONFIG}");
    match component::kubelet::follow(&mut Config::new(&host.node_name), &text) {
        Ok(left) if left.is_empty() => None,
        Ok(left) => Some(format!("fields of {place} that have no effect on this node: {}", left.join(", "))),
        Err(why) => Some(format!("{place} is not followed: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_has_what_its_cluster_says_to_kubelets_and_names_what_it_can_not_have() {
        let (client, _server) = crate::api::tests::admin().await;
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = crate::config::tests::host(dir.path());
        let mut foreign = Foreign::new(vec![[10, 96, 0, 10].into()], false);
        host.cluster.foreign = Some(foreign.clone());
        assert!(look(&host, client.clone(), &mut foreign).await.is_err() && told(&host).is_none(), "it shows none");
        let kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nserverTLSBootstrap: true\n\
            clusterDNS: [10.96.0.11]\nmaxPods: 42\nregistryPullQPS: 7\n";
        let map = ConfigMap {
            metadata: kube::api::ObjectMeta { name: Some(KUBELET_CONFIG.into()), ..Default::default() },
            data: Some([(KUBELET.to_owned(), kubelet.to_owned())].into()),
            ..ConfigMap::default()
        };
        Api::<ConfigMap>::namespaced(client.clone(), SYSTEM).create(&Default::default(), &map).await.expect("shown");
        look(&host, client, &mut foreign).await.expect("read");
        assert_eq!((foreign.cluster_dns[0].to_string(), foreign.serving_certificates), ("10.96.0.11".into(), true));
        let mut config = Config::new("n");
        follow(&host, &mut config);
        assert_eq!(config.max_pods, 42);
        let said = told(&host).expect("a sentence");
        assert!(said.ends_with("have no effect on this node: registryPullQPS"), "{said}");
        host.cluster.foreign = None;
        assert!(told(&host).is_none(), "one of ours says nothing to its kubelets so");
    }
}
