//! How the node's components are configured here: container runtime with the pod network, kube-proxy, cluster DNS,
//! kubelet.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;

use super::{Assembly, Serving, addons, images, kubelet_config, pod_network, ready};
use crate::api::Identity;
use crate::component;
use crate::config::{Host, Network, Roles, list, private_dir};
use crate::cri;

/// Where the runtime of a cluster keeps its things; the offline clean-up opens the same.
pub fn runtime_config(host: &Host) -> runtime::Config {
    let mut config = runtime::Config::new(host.runtime_root(), host.run_dir().join("runtime"));
    config.socket = host.cri_socket();
    config.cgroup_root = host.cgroup();
    config.registries = Some(host.registries());
    config
}

/// The name of kube-proxy's nftables tables.
pub fn proxy_table(host: &Host) -> String {
    format!("{}-proxy", host.tag())
}

pub async fn runtime(a: &mut Assembly) -> Result<Serving> {
    let config = runtime_config(&a.host);
    let network = pod_network::open(&a.host)?;
    a.network = Some(network.clone());
    a.parts
        .run("container-runtime", |stop| async move { runtime::run(config, network, stop).await.map_err(Into::into) });
    let node = a.client(&a.node()).await?;
    let (host, word, imported) = (a.host.clone(), a.word.clone(), a.images.clone());
    Ok(async move {
        ready::runtime(host.cri_socket()).await?;
        images::import(&host, &node, &word).await;
        imported.set();
        Ok(())
    }
    .boxed())
}

/// How long pods have when the node stops gracefully, as `shutdownGracePeriod` of `--kubelet-arg config=FILE` says it, or of the
/// cluster's own configuration of kubelets; zero where nothing does.
pub fn shutdown_grace(host: &Host) -> Duration {
    let mut config = kubelet::config::Config::new(&host.node_name);
    kubelet_config::follow(host, &mut config);
    // What is wrong with them was told before anything started.
    match component::kubelet::over(&mut config, list(&host.options.kubelet_arg)) {
        Ok(()) => kubelet::shutdown::longest(&config),
        Err(_) => Duration::ZERO,
    }
}

/// Stops every pod through the runtime that runs.
pub async fn stop_pods(host: &Host, grace: Duration) -> Result<usize> {
    cri::stop_all(cri::connect(&host.cri_socket()).await?, grace, false).await
}

pub async fn proxy(a: &mut Assembly) -> Result<Serving> {
    let client = a.client(&Identity::Proxy).await?;
    let mut config = proxy::Config {
        hostname_override: a.host.node_name.clone(),
        table: proxy_table(&a.host),
        cluster_cidr: a.host.cluster.pod_cidr.iter().collect(),
        node_local: if a.host.cluster.leaves("kube-dns") { Vec::new() } else { a.host.cluster.dns_ips() },
        healthz_bind_address: Some(SocketAddr::new(a.host.every_address(), a.host.port(10256))),
        metrics_bind_address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, a.host.port(10249)))),
        last_known: last_known(&a.host, "proxy")?,
        ..proxy::Config::default()
    };
    component::proxy::over(&mut config, list(&a.host.options.kube_proxy_arg))?;
    let ready = config.ready.clone();
    a.parts.run("kube-proxy", |stop| async move { proxy::run(config, client, stop).await.map_err(Into::into) });
    Ok(ready::latch(ready))
}

/// The part that announces addresses of load balancers.
pub const ANNOUNCER: &str = "announcer";

/// What it is told.
pub fn announcer(host: &Host) -> announcer::Config {
    let cluster = &host.cluster;
    announcer::Config {
        node: host.node_name.clone(),
        own_ranges: cluster.pod_cidr.iter().chain(cluster.service_cidr.iter()).collect(),
        netns: None,
    }
}

/// Where a component of a node alone keeps what it knows, for a start while no API server answers.
fn last_known(host: &Host, component: &str) -> Result<Option<PathBuf>> {
    if host.roles().has(Roles::CONTROL_PLANE) {
        return Ok(None);
    }
    let dir = host.last_known().join(component);
    private_dir(&host.last_known())?;
    private_dir(&dir)?;
    Ok(Some(dir))
}

/// The name of the nftables table that keeps DNS out of connection tracking.
pub fn dns_table(host: &Host) -> String {
    format!("{}-dns", host.tag())
}

/// The link that has the DNS Service's addresses, as a /32 and a /128: it is on every host, and pods' questions end there.
pub const DNS_LINK: &str = "lo";

pub async fn dns(a: &mut Assembly) -> Result<Serving> {
    let addresses = a.host.cluster.dns_ips();
    addresses.iter().try_for_each(|address| dns::claim(DNS_LINK, *address))?;
    let client = a.client(&Identity::Dns).await?;
    let config = dns::Config {
        bind: addresses.iter().map(|address| SocketAddr::from((*address, 53))).collect(),
        cluster_domain: a.host.cluster.cluster_domain.clone(),
        untracked_table: Some(dns_table(&a.host)),
        last_known: last_known(&a.host, "dns")?,
        ..dns::Config::default()
    };
    a.parts.run("kube-dns", |stop| async move { dns::run(config, client, stop).await.map_err(Into::into) });
    Ok(ready::dns(SocketAddr::from((a.host.cluster.dns_ip(), 53)), a.host.cluster.cluster_domain.clone()).boxed())
}

pub async fn kubelet(a: &mut Assembly) -> Result<Serving> {
    let client = a.client(&a.node()).await?;
    let node = client.clone();
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
    let host = a.host.clone();
    let admin = match host.roles().has(Roles::CONTROL_PLANE) {
        true => Some(a.client(&Identity::Admin).await?),
        false => None,
    };
    Ok(async move {
        // No clock tells a former life's report from this one's: a host's may go back while it starts.
        reported.wait().await;
        if let Some(admin) = admin {
            addons::label_node(&admin, &host).await?;
        }
        let (brought, ours) = (host.cluster.network() == Network::Cni, host.cluster.foreign.is_none());
        match brought && ours {
            true => ready::node_but_for_a_network(node, host.node_name.clone()).await,
            false => ready::node(node, host.node_name.clone()).await,
        }
    }
    .boxed())
}

fn kubelet_config(a: &Assembly) -> Result<kubelet::config::Config> {
    let host = &a.host;
    let serving = a.pki.pair("kubelet");
    let mut config = kubelet::config::Config::new(&host.node_name);
    config.addresses = Some(kubelet::addresses::Addresses::followed(a.node_ip.subscribe()));
    (config.leaving, config.left) = a.leaving.clone();
    config.root_dir = host.kubelet_root();
    config.pod_logs_dir = host.data_dir.join("pod-logs");
    config.container_runtime_endpoint = format!("unix://{}", host.cri_socket().display());
    config.static_pod_path = Some(host.data_dir.join("manifests"));
    config.cluster_dns = host.cluster.dns_ips();
    config.cluster_domain = host.cluster.cluster_domain.clone();
    config.cgroup_root = host.cgroup();
    config.image_gc_high_threshold_percent = 95;
    config.image_gc_low_threshold_percent = 90;
    // Upstream's tenth of a large disk is many gigabytes of a developer's machine: a twentieth is enough warning.
    for place in ["nodefs.available", "imagefs.available"] {
        config.eviction.hard.insert(place.into(), kubelet::config::Threshold::Share(0.05));
    }
    config.server.address = host.every_address();
    config.server.port = host.kubelet_port();
    config.server.healthz_port = host.port(10248);
    config.server.tls_cert_file = Some(serving.cert);
    config.server.tls_private_key_file = Some(serving.key);
    config.server.client_ca_file = Some(a.pki.ca());
    if !host.roles().has(Roles::CONTROL_PLANE) {
        // Only who has the rights of an administrator labels a node anew: here it registers with them.
        config.node_labels = host.options.labels();
    }
    kubelet_config::follow(host, &mut config);
    crate::hardening::kubelet(&host.cluster, &mut config);
    component::kubelet::taints(&mut config, list(&host.options.node_taint))?;
    component::kubelet::over(&mut config, list(&host.options.kubelet_arg))?;
    Ok(config)
}
