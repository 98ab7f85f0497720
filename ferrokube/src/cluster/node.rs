//! How the node's components are configured here: container runtime with the pod network, kube-proxy, cluster DNS,
//! kubelet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cni::Prefix;
use futures::FutureExt;

use super::pod_network::BridgeNetwork;
use super::{Assembly, Serving, addons, cri, images, ready};
use crate::commands::component;
use crate::config::{Cluster, list};

/// Where the runtime of a cluster keeps its things; the offline clean-up opens the same.
pub fn runtime_config(cluster: &Cluster) -> runtime::Config {
    let mut config = runtime::Config::new(cluster.runtime_root(), cluster.run_dir().join("runtime"));
    config.socket = cluster.cri_socket();
    config.cgroup_root = cgroup_root(cluster);
    config.registries = Some(cluster.registries());
    config
}

/// The group in each hierarchy below which everything of the cluster is.
pub fn cgroup_root(cluster: &Cluster) -> String {
    format!("/{}", cluster.tag())
}

/// The name of kube-proxy's nftables tables.
pub fn proxy_table(cluster: &Cluster) -> String {
    format!("{}-proxy", cluster.tag())
}

pub async fn runtime(a: &mut Assembly) -> Result<Serving> {
    let config = runtime_config(&a.cluster);
    let network = Arc::new(BridgeNetwork::new(&a.cluster));
    a.parts.run("runtime", |stop| async move { runtime::run(config, network, stop).await.map_err(Into::into) });
    let admin = a.client("kubernetes-admin", &["system:masters"])?;
    let (cluster, word, imported) = (a.cluster.clone(), a.word.clone(), a.images.clone());
    Ok(async move {
        ready::runtime(cluster.cri_socket()).await?;
        images::import(&cluster, &admin, &word).await;
        imported.set();
        Ok(())
    }
    .boxed())
}

/// Stops every pod through the runtime that runs.
pub async fn stop_pods(cluster: &Cluster, grace: Duration) -> Result<usize> {
    cri::stop_all(cri::connect(&cluster.cri_socket()).await?, grace, false).await
}

pub async fn proxy(a: &mut Assembly) -> Result<Serving> {
    let client = a.client("system:kube-proxy", &[])?;
    let mut config = proxy::Config {
        hostname_override: a.cluster.node_name.clone(),
        table: proxy_table(&a.cluster),
        cluster_cidr: vec![Prefix::new(a.cluster.pod_cidr.address, a.cluster.pod_cidr.bits)],
        node_local: vec![IpAddr::V4(a.cluster.dns_ip())],
        healthz_bind_address: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, a.cluster.port(10256)))),
        metrics_bind_address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, a.cluster.port(10249)))),
        ..proxy::Config::default()
    };
    component::proxy::over(&mut config, list(&a.cluster.options.kube_proxy_arg))?;
    let ready = config.ready.clone();
    a.parts.run("kube-proxy", |stop| async move { proxy::run(config, client, stop).await.map_err(Into::into) });
    Ok(ready::latch(ready))
}

/// The name of the nftables table that keeps DNS out of connection tracking.
pub fn dns_table(cluster: &Cluster) -> String {
    format!("{}-dns", cluster.tag())
}

/// The link that has the DNS Service's address, as a /32: it is on every host, and pods' questions end there.
pub const DNS_LINK: &str = "lo";

pub async fn dns(a: &mut Assembly) -> Result<Serving> {
    let address = a.cluster.dns_ip();
    dns::claim(DNS_LINK, IpAddr::V4(address))?;
    let user = format!("system:serviceaccount:kube-system:{}", addons::DNS_ACCOUNT);
    let client = a.client(&user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])?;
    let config = dns::Config {
        bind: vec![SocketAddr::from((address, 53))],
        cluster_domain: a.cluster.cluster_domain.clone(),
        untracked_table: Some(dns_table(&a.cluster)),
        ..dns::Config::default()
    };
    a.parts.run("dns", |stop| async move { dns::run(config, client, stop).await.map_err(Into::into) });
    Ok(ready::dns(SocketAddr::from((address, 53)), a.cluster.cluster_domain.clone()).boxed())
}

pub async fn kubelet(a: &mut Assembly) -> Result<Serving> {
    let client = a.node_client()?;
    let config = kubelet_config(a)?;
    let reported = config.ready.clone();
    let imported = a.images.clone();
    a.parts.run("kubelet", |stop| async move {
        tokio::select! {
            () = imported.wait() => {}
            () = stop.cancelled() => return Ok(()),
        }
        kubelet::run(config, client, stop).await.map_err(Into::into)
    });
    let admin = a.client("kubernetes-admin", &["system:masters"])?;
    let cluster = a.cluster.clone();
    Ok(async move {
        // No clock tells a former life's report from this one's: a host's may go back while it starts.
        reported.wait().await;
        addons::label_node(&admin, &cluster).await?;
        ready::node(admin, cluster.node_name.clone()).await
    }
    .boxed())
}

fn kubelet_config(a: &Assembly) -> Result<kubelet::config::Config> {
    let cluster = &a.cluster;
    let serving = a.pki.pair("kubelet");
    let mut config = kubelet::config::Config::new(&cluster.node_name);
    config.addresses = Some(kubelet::addresses::Addresses::followed(a.node_ip.subscribe()));
    config.root_dir = cluster.kubelet_root();
    config.pod_logs_dir = cluster.data_dir.join("pod-logs");
    config.container_runtime_endpoint = format!("unix://{}", cluster.cri_socket().display());
    config.static_pod_path = Some(cluster.data_dir.join("manifests"));
    config.cluster_dns = vec![IpAddr::V4(cluster.dns_ip())];
    config.cluster_domain = cluster.cluster_domain.clone();
    config.cgroup_root = cgroup_root(cluster);
    config.image_gc_high_threshold_percent = 95;
    config.image_gc_low_threshold_percent = 90;
    // Upstream's tenth of a large disk is many gigabytes of a developer's machine: a twentieth is enough warning.
    for place in ["nodefs.available", "imagefs.available"] {
        config.eviction.hard.insert(place.into(), kubelet::config::Threshold::Share(0.05));
    }
    config.server.port = cluster.kubelet_port();
    config.server.healthz_port = cluster.port(10248);
    config.server.tls_cert_file = Some(serving.cert);
    config.server.tls_private_key_file = Some(serving.key);
    config.server.client_ca_file = Some(a.pki.ca());
    crate::hardening::kubelet(cluster, &mut config);
    component::kubelet::taints(&mut config, list(&cluster.options.node_taint))?;
    component::kubelet::over(&mut config, list(&cluster.options.kubelet_arg))?;
    Ok(config)
}
