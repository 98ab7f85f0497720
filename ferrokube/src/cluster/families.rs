//! A node that has joined follows its cluster when that gets a second family of addresses: it hears of it by the map of the
//! cluster's configuration that machines join by, writes it down, and its daemon starts anew with it, while its pods go on
//! with the address that they have. What a cluster has can't change otherwise, and is told where it does. The decision is
//! pure; I/O: watches the map, writes `cluster.json`.
//!
//! ```text
//!   server, started with two families ──► ConfigMap kube-system/kubeadm-config ──► here ──► cluster.json, a new life
//!                                     └─► podCIDRs of each Node, by node-ipam ───────────► the bridge, flannel
//! ```
//!
//! Either may come first: a node that has no range of the second family yet goes on with the first.
//!
//! Where the control plane isn't ours nodes may read that map and not watch it, as kubeadm binds it: a node there looks at
//! each start, as upstream's kubelet has another `--node-ip` when it is started again, and its pods' ranges are the add-on's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use client::Informer;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher;
use meta::Ranges;
use tokio_util::sync::CancellationToken;

use crate::config::{Cluster, Host};
use crate::joining::discovery;
use crate::joining::published::{KUBEADM_CONFIG, SYSTEM};
use crate::preflight;
use crate::process::Anew;

/// What a host lacks for a family is given to it by hand, and nothing tells of that: it tries again.
const AGAIN: Duration = Duration::from_secs(60);
/// A start does not hang on an API server that is away: what was known last holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What comes of the ranges that a cluster says it has.
#[derive(Debug, PartialEq)]
enum Turn {
    Same,
    /// The cluster as it is by now.
    Gains(Box<Cluster>),
    /// What can't be followed, in a sentence.
    Apart(String),
}

fn decide(cluster: &Cluster, told: Result<Option<(Ranges, Ranges)>, String>) -> Turn {
    let (pods, services) = match told {
        Ok(Some(ranges)) => ranges,
        // Who has taken it away has not changed the cluster by that.
        Ok(None) => return Turn::Same,
        Err(why) => return Turn::Apart(why),
    };
    if (pods, services) == (cluster.pod_cidr, cluster.service_cidr) {
        return Turn::Same;
    }
    if cluster.gains(&pods, &services) {
        return Turn::Gains(Box::new(Cluster { pod_cidr: pods, service_cidr: services, ..cluster.clone() }));
    }
    let (own_pods, own_services) = (cluster.pod_cidr, cluster.service_cidr);
    Turn::Apart(format!(
        "it has pods in {pods} and Services in {services}, and this node joined it with {own_pods} and {own_services}"
    ))
}

/// Follows until `stop`; ends with [`Anew`] once there is a second family.
pub async fn run(host: Arc<Host>, node: kube::Client, stop: CancellationToken) -> Result<()> {
    follow(host, node, AGAIN, stop).await
}

/// What a node whose control plane isn't ours has of its cluster by now, at a start. What can't be followed is told.
pub async fn at_start(host: &Host, node: kube::Client) -> Cluster {
    let maps = Api::<ConfigMap>::namespaced(node, SYSTEM);
    let why = match tokio::time::timeout(PATIENCE, maps.get_opt(KUBEADM_CONFIG)).await {
        Ok(Ok(map)) => match map.map_or(Turn::Same, |map| decide(&host.cluster, discovery::ranges(&map))) {
            Turn::Same => return host.cluster.clone(),
            Turn::Gains(cluster) => match gain(host, (*cluster).clone()) {
                Ok(()) => return *cluster,
                Err(error) => format!("{error:#}"),
            },
            Turn::Apart(why) => why,
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {PATIENCE:?}"),
    };
    tracing::warn!("the cluster's configuration ({SYSTEM}/{KUBEADM_CONFIG}) is not followed: {why}");
    host.cluster.clone()
}

/// The same, where what this host can't follow is tried `again` after this time.
async fn follow(host: Arc<Host>, node: kube::Client, again: Duration, stop: CancellationToken) -> Result<()> {
    let only = watcher::Config::default().fields(&format!("metadata.name={KUBEADM_CONFIG}"));
    let informer = Informer::new(Api::<ConfigMap>::namespaced(node, SYSTEM)).select(only);
    let (cache, _) = informer.run(stop.clone());
    let mut version = cache.version();
    let mut told = String::new();
    loop {
        version.borrow_and_update();
        let map = cache.get_in(SYSTEM, KUBEADM_CONFIG);
        let turn = map.map_or(Turn::Same, |map| decide(&host.cluster, discovery::ranges(&map)));
        let why = match turn {
            Turn::Same => String::new(),
            Turn::Gains(cluster) => match gain(&host, *cluster) {
                Ok(()) => return Err(Anew.into()),
                Err(error) => format!("{error:#}"),
            },
            Turn::Apart(why) => why,
        };
        if !why.is_empty() && why != told {
            tracing::warn!("the cluster's configuration ({SYSTEM}/{KUBEADM_CONFIG}) is not this node's: {why}");
        }
        let apart = !why.is_empty();
        told = why;
        tokio::select! {
            () = tokio::time::sleep(again), if apart => {}
            () = stop.cancelled() => return Ok(()),
            changed = version.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Writes down what the cluster has by now. A host that can't have it keeps what it has.
fn gain(host: &Host, cluster: Cluster) -> Result<()> {
    let gained = Host { cluster, ..host.clone() };
    preflight::family(&gained, &host.cluster)?;
    gained.save()?;
    let (pods, services) = (gained.cluster.pod_cidr, gained.cluster.service_cidr);
    tracing::info!(%pods, %services, "the cluster has a second family of addresses: this daemon has it with this start or \
        its next, pods go on");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::named;
    use crate::layout;

    #[tokio::test]
    async fn a_host_that_cannot_have_a_family_has_it_once_it_can() {
        let (client, _server) = crate::api::tests::admin().await;
        let dir = tempfile::tempdir().expect("a directory");
        // Where it writes down what it has, something is in the way.
        let place = dir.path().join("data");
        std::fs::write(&place, "").expect("written");
        let mut host = named("families-there", &place);
        host.options.disable_node = Some(true);
        let mut both = host.cluster.clone();
        both.pod_cidr = format!("{},fd42::/56", both.pod_cidr).parse().expect("ranges");
        both.service_cidr = format!("{},fd43::/112", both.service_cidr).parse().expect("ranges");
        crate::joining::published::apply_rights(&client, &both).await.expect("told");
        let follow = follow(Arc::new(host.clone()), client, Duration::from_millis(20), CancellationToken::new());
        let follow = tokio::spawn(follow);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!follow.is_finished(), "it goes on with what it has");
        std::fs::remove_file(&place).expect("removed");
        let ended = tokio::time::timeout(Duration::from_secs(30), follow).await.expect("it tries again").expect("run");
        assert!(ended.expect_err("its next life").is::<Anew>());
        let written = std::fs::read_to_string(place.join("cluster.json")).expect("written down");
        layout::remove(&host).expect("removed");
        assert!(written.contains("fd42::/56"), "{written}");
    }

    /// As an administrator changes the map, once the control plane of kubeadm's was given both ranges.
    #[tokio::test]
    async fn a_node_of_another_control_plane_has_its_clusters_families_from_its_next_start_on() {
        let (client, _server) = crate::api::tests::admin().await;
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = named("families-foreign", dir.path());
        host.options.disable_node = Some(true);
        let one = host.cluster.clone();
        assert_eq!(at_start(&host, client.clone()).await, one, "nothing is told");
        let maps = Api::<ConfigMap>::namespaced(client.clone(), SYSTEM);
        for (pods, services, expected) in [
            ("10.42.0.0/16,fd42::/56", "10.43.0.0/16", "10.42.0.0/16"),
            ("10.44.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112", "10.42.0.0/16"),
            ("10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112", "10.42.0.0/16,fd42::/56"),
        ] {
            let networking = format!("networking:\n  podSubnet: {pods}\n  serviceSubnet: {services}\n");
            let map = ConfigMap {
                metadata: kube::api::ObjectMeta { name: Some(KUBEADM_CONFIG.into()), ..Default::default() },
                data: Some([("ClusterConfiguration".to_owned(), networking)].into()),
                ..ConfigMap::default()
            };
            let _ = maps.delete(KUBEADM_CONFIG, &Default::default()).await;
            maps.create(&Default::default(), &map).await.expect("told");
            assert_eq!(at_start(&host, client.clone()).await.pod_cidr.to_string(), expected, "{pods} {services}");
        }
        let written = std::fs::read_to_string(dir.path().join("cluster.json")).expect("written down");
        layout::remove(&host).expect("removed");
        assert!(written.contains("fd42::/56"), "{written}");
    }

    #[test]
    fn a_second_family_is_followed_and_any_other_change_is_told() {
        let cluster = crate::config::tests::host("/nowhere".as_ref()).cluster;
        let ranges = |pods: &str, services: &str| {
            Ok(Some((pods.parse::<Ranges>().expect("ranges"), services.parse::<Ranges>().expect("ranges"))))
        };
        let (pods, services) = ("10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112");
        assert_eq!(decide(&cluster, ranges("10.42.0.0/16", "10.43.0.0/16")), Turn::Same);
        assert_eq!(decide(&cluster, Ok(None)), Turn::Same);
        let Turn::Gains(gained) = decide(&cluster, ranges(pods, services)) else { panic!("it gains a family") };
        assert_eq!((gained.pod_cidr.to_string(), gained.service_cidr.to_string()), (pods.into(), services.into()));
        assert_eq!(
            Cluster { pod_cidr: cluster.pod_cidr, service_cidr: cluster.service_cidr, ..*gained.clone() },
            cluster
        );
        assert_eq!(decide(&gained, ranges(pods, services)), Turn::Same);
        let apart = |turn: Turn| if let Turn::Apart(why) = turn { why } else { panic!("{turn:?}") };
        let moved = apart(decide(&cluster, ranges("10.44.0.0/16,fd42::/56", services)));
        assert!(
            moved.contains("pods in 10.44.0.0/16,fd42::/56") && moved.contains("joined it with 10.42.0.0/16"),
            "{moved}"
        );
        assert!(
            apart(decide(&gained, ranges("10.42.0.0/16", "10.43.0.0/16"))).contains("fd42::/56"),
            "none is taken away"
        );
        assert_eq!(apart(decide(&cluster, Err("podSubnet: x".into()))), "podSubnet: x");
    }
}
