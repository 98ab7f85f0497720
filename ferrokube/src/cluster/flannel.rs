//! flannel in a cluster of ours: what is chosen for a new one, what the API holds of it, and how it is started beside the
//! rest of a node. I/O: the kernel, the API server, by `flannel`.
//!
//! ```text
//! control plane   ──net-conf──► ConfigMap kube-flannel/kube-flannel-cfg      as upstream's manifest has it
//! each node       ◄─net-conf───┘
//!   node's address ──► flannel ──► the pod network: how long a packet may be (and, where leases are in etcd, the range)
//! ```

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use flannel::{
    AnnotationNames, Config, Endpoints, EtcdOptions, ManagerOptions, Masquerade, NodesOptions, Own, Source, Told, Wish,
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use linux::netlink::Rtnl;
use pod_network::{PodNetwork, Way};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Assembly, Serving, moving, ready};
use crate::api::Identity;
use crate::apply::{MANAGER, put};
use crate::component::flannel::{Given, given};
use crate::config::{Cluster, FlannelBackend, Host, Network, Roles, known, list, write_private};
use crate::fault::Fault;
use crate::joining::published::{JOINERS, NODES, RBAC, SUBNETS, binding, group};

/// Its row in `components::COMPONENTS`.
pub const NAME: &str = "flannel";
const NAMESPACE: &str = Identity::FLANNEL_NAMESPACE;
/// Upstream's ConfigMap, and the key of the network's configuration in it.
const MAP: &str = "kube-flannel-cfg";
const NET_CONF: &str = "net-conf.json";
const PREFIX: &str = "flannel.alpha.coreos.com";
/// What a node may: of other nodes only what packets need.
const NODES_ROLE: &str = "ferrokube:node-flannel";
const MAP_ROLE: &str = "ferrokube:flannel-config";
/// What flannel's links are called, with the VNI after it.
const LINK: &str = "flannel.";

/// Chooses for a new cluster, where nobody has: the backend by what the kernel has, the VNI by what others have.
pub fn settle(host: &mut Host) -> Result<()> {
    if host.cluster.network() != Network::Flannel || !host.roles().has(Roles::CONTROL_PLANE) {
        return Ok(());
    }
    let v6 = host.cluster.has_ipv6();
    let options = &mut host.cluster.options;
    let said = options.flannel_backend;
    let backend = *options.flannel_backend.get_or_insert_with(|| match flannel::has_vxlan() {
        true => FlannelBackend::Vxlan,
        false => FlannelBackend::Udp,
    });
    if v6 && !backend.has_ipv6() {
        let kernel = if said.is_none() { "this kernel has no VXLAN links, and " } else { "" };
        let why = format!("{kernel}flannel's backend {}", backend.name());
        let sentence = format!("--pod-cidr: {why} carries IPv4 alone: say --flannel-backend host-gw, or vxlan");
        return Err(Fault::usage(sentence).into());
    }
    if let Some(why) = said.and_then(|said| flannel::lacks(said.name())) {
        return Err(Fault::usage(format!("--flannel-backend {}: {why}", backend.name())).into());
    }
    let (links, known) = (Rtnl::open().and_then(|mut rtnl| rtnl.links()).context("this host's links")?, known());
    let others: Vec<&Host> = known.iter().filter(|other| other.cluster.name != host.cluster.name).collect();
    let has_ipip = |other: &&&Host| {
        other.cluster.network() == Network::Flannel && other.cluster.options.flannel_backend == Some(backend)
    };
    if let Some(other) = others.iter().find(has_ipip).filter(|_| backend == FlannelBackend::Ipip) {
        let name = &other.cluster.name;
        return Err(Fault::usage(format!(
            "--flannel-backend ipip: the cluster {name:?} has it on this host, and a host has one: say vxlan, wireguard, \
             host-gw or udp"
        ))
        .into());
    }
    let options = &mut host.cluster.options;
    if options.flannel_vni.is_none() {
        let numbers = others.iter().filter_map(|other| other.cluster.options.flannel_vni);
        options.flannel_vni =
            Some(free_vni(u32::from(host.slot) + 1, links.iter().map(|link| link.name.as_str()), numbers));
    }
    Ok(())
}

/// The first number from this one on that no link is named by and no other cluster of this host has, whether it runs or
/// not: UDP ports of further backends go by it, too.
fn free_vni<'n>(first: u32, links: impl Iterator<Item = &'n str>, others: impl Iterator<Item = u32>) -> u32 {
    let taken: Vec<u32> = links.filter_map(|name| name.strip_prefix(LINK)?.parse().ok()).chain(others).collect();
    (first..).find(|vni| !taken.contains(vni)).unwrap_or(first)
}

/// Puts what a cluster with flannel has in the API: upstream's objects by upstream's names, and what nodes of ours may.
pub async fn publish(client: &kube::Client, cluster: &Cluster) -> Result<()> {
    if cluster.network() != Network::Flannel {
        return withdraw(client).await;
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE,
        "labels": {"k8s-app": "flannel"}}});
    put(client, "namespaces", &namespace).await?;
    let mut all = objects(cluster);
    let maps = kube::Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let there = maps.get_opt(MAP).await.context("the configuration of flannel")?;
    if there.is_some_and(|map| is_ahead(&map, cluster)) {
        tracing::warn!(
            "the pod network has another family of addresses by another server, which this one does not have yet"
        );
        all.retain(|(plural, _)| *plural != "configmaps");
    }
    try_join_all(all.iter().map(|(plural, object)| put(client, plural, object))).await.map(drop)
}

/// Whether another server has put a second family there: this one, which is not told of it yet, does not take it back.
fn is_ahead(map: &ConfigMap, cluster: &Cluster) -> bool {
    let there = map.data.as_ref().and_then(|data| flannel::NetConf::parse(data.get(NET_CONF)?.as_bytes()).ok());
    let own = flannel::NetConf::parse(cluster.net_conf().to_string().as_bytes());
    there.zip(own.ok()).is_some_and(|(there, own)| own.gains(&there))
}

/// The cluster has another network now, whatever it had: who joins learns that, and nodes that have flannel are told. A map
/// that somebody else has put there is left: the network may be upstream's flannel, by its manifest.
async fn withdraw(client: &kube::Client) -> Result<()> {
    let maps = kube::Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let map = maps.get_metadata_opt(MAP).await.context("the configuration of flannel")?;
    let managers = map.iter().flat_map(|map| map.metadata.managed_fields.iter().flatten());
    if !managers.into_iter().any(|entry| entry.manager.as_deref() == Some(MANAGER)) {
        return Ok(());
    }
    match maps.delete(MAP, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop).context("the configuration of flannel, which the cluster has no more"),
    }
}

fn objects(cluster: &Cluster) -> Vec<(&'static str, Value)> {
    let mut data =
        json!({"cni-conf.json": format!("{:#}\n", cni_conf()), NET_CONF: format!("{:#}\n", cluster.net_conf())});
    if cluster.leases_in_etcd() {
        let (endpoints, prefix) = cluster.flannel_etcd();
        let subnets = json!({"type": "etcd", "endpoints": endpoints, "prefix": prefix});
        data[SUBNETS] = format!("{subnets:#}\n").into();
    }
    let account = json!({"kind": "ServiceAccount", "name": Identity::FLANNEL_ACCOUNT, "namespace": NAMESPACE});
    let rule = |resource: &str, verbs: &[&str]| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
    let see_nodes = rule("nodes", &["get", "list", "watch"]);
    let upstreams = [rule("pods", &["get"]), see_nodes.clone(), rule("nodes/status", &["patch"])];
    let labels = json!({"tier": "node", "k8s-app": "flannel", "app": "flannel"});
    let map_rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [MAP],
        "verbs": ["get", "list", "watch"]});
    vec![
        (
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": Identity::FLANNEL_ACCOUNT, "namespace": NAMESPACE, "labels": {"k8s-app": "flannel"}}}),
        ),
        (
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": MAP, "namespace": NAMESPACE, "labels": labels}, "data": data}),
        ),
        (
            "clusterroles",
            json!({"apiVersion": RBAC, "kind": "ClusterRole",
            "metadata": {"name": "flannel", "labels": {"k8s-app": "flannel"}}, "rules": upstreams}),
        ),
        ("clusterrolebindings", binding("ClusterRole", "flannel", None, "flannel", &[account])),
        (
            "clusterroles",
            json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": NODES_ROLE},
            "rules": [see_nodes]}),
        ),
        ("clusterrolebindings", binding("ClusterRole", NODES_ROLE, None, NODES_ROLE, &[group(NODES)])),
        (
            "roles",
            json!({"apiVersion": RBAC, "kind": "Role",
            "metadata": {"name": MAP_ROLE, "namespace": NAMESPACE}, "rules": [map_rule]}),
        ),
        // A machine that joins learns from it that the cluster has flannel.
        ("rolebindings", binding("Role", MAP_ROLE, Some(NAMESPACE), MAP_ROLE, &[group(NODES), group(JOINERS)])),
    ]
}

/// For upstream's flannel on a node that is not ours.
fn cni_conf() -> Value {
    let delegate = json!({"hairpinMode": true, "isDefaultGateway": true});
    json!({"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
        {"type": "flannel", "delegate": delegate}, {"type": "portmap", "capabilities": {"portMappings": true}}]})
}

pub async fn start(a: &mut Assembly) -> Result<Serving> {
    let host = a.host.clone();
    let given = given(list(&host.options.flannel_arg))?;
    let manager = manager(a, &given).await?;
    let network = a.network.clone().context("the container runtime is not started")?;
    let (told, ready) = (watch::Sender::new(Told::default()), client::Latch::default());
    let (addresses, here) = (a.node_ip.subscribe(), ready.clone());
    a.parts.run(NAME, |stop| async move {
        let reports = told.subscribe();
        let work = async {
            if let (ManagerOptions::Etcd(etcd), true) = (&manager, host.roles().has(Roles::CONTROL_PLANE)) {
                // What an administrator wrote there stays.
                let written = flannel::publish(etcd, &host.cluster.net_conf().to_string()).await;
                written.map_err(|error| Fault::failed(error.to_string()))?;
            }
            let wish = wait_for_address(&host, &given, addresses.clone(), &here).await;
            let interface = watch::Sender::new(wish);
            let config = Config {
                manager,
                interface: interface.subscribe(),
                subnet_file: host.subnet_file(),
                // What pods send outside is the bridge's to masquerade.
                masquerade: Masquerade::ToOtherHosts,
                table: pod_network::flannel_table(&host.tag()),
                resync: flannel::RESYNC,
                health: given.health,
                own: Own { tag: Some(host.tag()), number: host.slot, key_file: host.wireguard_key() },
                told,
            };
            tokio::select! {
                ended = flannel::run(config, stop.clone()) => ended.map_err(|error| Fault::failed(error.to_string()).into()),
                never = follow_address(&host, &given, addresses, &interface) => never,
            }
        };
        tokio::select! {
            ended = work => ended,
            never = tell(&host, reports, network, &here) => never,
            () = stop.cancelled() => Ok(()),
        }
    });
    Ok(ready::latch(ready))
}

async fn manager(a: &Assembly, given: &Given) -> Result<ManagerOptions> {
    let cluster = &a.host.cluster;
    let here = a.host.roles().has(Roles::CONTROL_PLANE);
    if cluster.leases_in_etcd() {
        let (urls, prefix) = cluster.flannel_etcd();
        let options = EtcdOptions {
            endpoints: Endpoints { urls, ..given.etcd.clone() },
            prefix,
            renew_margin: given.renew_margin,
        };
        return Ok(ManagerOptions::Etcd(options));
    }
    let config = match here {
        true => Source::Text(cluster.net_conf().to_string()),
        false => Source::Map { namespace: NAMESPACE, name: MAP, key: NET_CONF },
    };
    Ok(ManagerOptions::Nodes(NodesOptions {
        client: a.client(&Identity::Flannel).await?,
        node: a.host.node_name.clone(),
        config,
        names: AnnotationNames::new(PREFIX).map_err(Fault::failed)?,
        sets_condition: true,
    }))
}

/// By what others reach this host, once it has an address of its own: as long as it has only the pods' bridge's, there are
/// no others.
async fn wait_for_address(
    host: &Host,
    given: &Given,
    mut addresses: watch::Receiver<Vec<IpAddr>>,
    ready: &client::Latch,
) -> Wish {
    loop {
        let told = addresses.borrow_and_update().clone();
        if let Some(wish) = wish(host, given, &told) {
            return wish;
        }
        tracing::info!("this host has no address by which others reach it: its pods reach each other");
        ready.set();
        if addresses.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The host's address may become another.
async fn follow_address(
    host: &Host,
    given: &Given,
    mut addresses: watch::Receiver<Vec<IpAddr>>,
    interface: &watch::Sender<Wish>,
) -> Result<()> {
    while addresses.changed().await.is_ok() {
        let told = addresses.borrow_and_update().clone();
        if let Some(wish) = wish(host, given, &told) {
            interface.send_replace(wish);
        }
    }
    std::future::pending().await
}

/// The link of the node's address of IPv4, of IPv6 where it has no other, or what `--flannel-arg` says instead. That of
/// IPv6 may be on another link; where it is the pods' bridge's, the host has none by which others reach it, and its pods'
/// IPv6 goes no further.
fn wish(host: &Host, given: &Given, told: &[IpAddr]) -> Option<Wish> {
    let v4 = told.iter().find_map(|ip| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None });
    let v6 = told.iter().find_map(|ip| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None });
    if let Some(said) = &given.interface {
        return Some(Wish { elsewhere_v6: v6, ..said.clone() });
    }
    let address = v4.map(IpAddr::V4).unwrap_or(moving::first(told));
    if host.cluster.pod_cidr.contains(address) {
        return None;
    }
    let addresses = Rtnl::open().and_then(|mut rtnl| rtnl.addresses(None)).unwrap_or_default();
    // Behind a translator the host does not have its own address: then it is the way out that others come by.
    let has = addresses.iter().any(|a| a.prefix.addr == address);
    let interfaces = if has { vec![address.to_string()] } else { Vec::new() };
    Some(Wish { interfaces, public_v4: v4, public_v6: v6, elsewhere_v6: v6, ..Wish::default() })
}

/// Tells the pod network what flannel has found out.
async fn tell(
    host: &Host,
    mut reports: watch::Receiver<Told>,
    network: Arc<dyn PodNetwork>,
    ready: &client::Latch,
) -> Result<()> {
    let by_lease = host.cluster.leases_in_etcd();
    loop {
        let told = reports.borrow_and_update().clone();
        if let Err(error) = put_notice(host, told.apart.as_deref()) {
            tracing::warn!(%error, "`ferrokube status` does not know in what the cluster's network is other than this host's");
        }
        let ranges = told.subnets.filter(|_| by_lease).map(|subnets| subnets.each().collect()).unwrap_or_default();
        let (way, network) = (Way { mtu: told.mtu, ranges }, network.clone());
        // It is tried again for whoever asks whether the network is ready.
        if let Err(error) = tokio::task::spawn_blocking(move || network.set_way(&way)).await? {
            tracing::warn!(%error, "the pod network does not know how packets get to other hosts");
        }
        if told.subnets.is_some() {
            ready.set();
        }
        if reports.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A sentence, and no more.
const NOTICE: u64 = 4 << 10;

fn put_notice(host: &Host, why: Option<&str>) -> Result<()> {
    let file = host.network_notice();
    match why {
        Some(why) => write_private(&file, why.as_bytes()),
        None => match std::fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context(file.display().to_string()),
            _ => Ok(()),
        },
    }
}

/// In what the cluster's network is other than this host's, with what to do.
pub fn notice(host: &Host) -> Option<String> {
    let mut why = String::new();
    std::fs::File::open(host.network_notice()).ok()?.take(NOTICE).read_to_string(&mut why).ok()?;
    let name = &host.cluster.name;
    Some(format!(
        "the cluster's pod network is other than this node's, which keeps it as long as it has pods: {}: to follow, \
         `ferrokube reset --name {name}` here, and join again",
        why.trim()
    ))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn host() -> Host {
        let mut host = crate::config::tests::host(std::path::Path::new("/nowhere"));
        host.cluster.options.network = Some(Network::Flannel);
        host
    }

    #[test]
    fn a_number_that_a_link_has_is_passed_over() {
        let links = ["lo", "flannel.1", "flannel.x", "flannel0", "flannel.3"];
        let free = |first, others: &[u32]| free_vni(first, links.into_iter(), others.iter().copied());
        assert_eq!((free(1, &[]), free(3, &[]), free(5, &[])), (2, 4, 5));
        // A cluster whose backend has no link of that name, or that is stopped, has its ports by it.
        assert_eq!((free(1, &[2]), free(4, &[4, 5])), (4, 6));
    }

    #[test]
    fn a_host_whose_address_is_its_bridges_has_no_others() {
        let none = Given::default();
        let wish = |address: Ipv4Addr| wish(&host(), &none, &[address.into()]);
        assert_eq!(wish(Ipv4Addr::new(10, 42, 0, 1)).map(|wish| wish.interfaces), None);
        let here = wish(Ipv4Addr::LOCALHOST).expect("a wish");
        assert_eq!((here.interfaces, here.public_v4), (vec!["127.0.0.1".to_owned()], Some(Ipv4Addr::LOCALHOST)));
        let there = Ipv4Addr::new(203, 0, 113, 77);
        let translated = wish(there).expect("a wish");
        assert_eq!((translated.interfaces.len(), translated.public_v4), (0, Some(there)));
    }

    #[tokio::test]
    async fn an_api_server_takes_the_objects_and_the_map_is_upstreams() {
        let (client, _server) = crate::api::tests::admin().await;
        let mut host = host();
        for _ in 0..2 {
            publish(&client, &host.cluster).await.expect("published");
        }
        let maps = kube::Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(client.clone(), NAMESPACE);
        let data = maps.get(MAP).await.expect("a map").data.unwrap_or_default();
        assert!(flannel::NetConf::parse(data[NET_CONF].as_bytes()).is_ok() && !data.contains_key(SUBNETS));
        // Of several servers one has a second family, and the next start of another leaves it.
        let mut both = host.cluster.clone();
        both.pod_cidr = format!("{},fd42::/56", both.pod_cidr).parse().expect("ranges");
        for cluster in [&both, &host.cluster] {
            publish(&client, cluster).await.expect("published");
            let data = maps.get(MAP).await.expect("a map").data.unwrap_or_default();
            assert!(data[NET_CONF].contains("fd42::/56"), "{data:?}");
        }
        maps.delete(MAP, &DeleteParams::default()).await.expect("deleted");
        host.cluster.options.flannel_subnet_manager = Some(crate::config::SubnetManager::Etcd);
        host.cluster.options.flannel_etcd_endpoints = Some(vec!["http://192.0.2.1:2379".into()]);
        publish(&client, &host.cluster).await.expect("published");
        let data = maps.get(MAP).await.expect("a map").data.unwrap_or_default();
        assert!(data[SUBNETS].contains("192.0.2.1:2379"), "{data:?}");
        // Who joins a cluster that has turned to the bridge learns nothing of flannel.
        host.cluster.options.network = Some(Network::Bridge);
        for _ in 0..2 {
            publish(&client, &host.cluster).await.expect("withdrawn");
        }
        assert!(maps.get_opt(MAP).await.expect("an answer").is_none());
        // Whoever brings a network may bring upstream's flannel.
        host.cluster.options.network = Some(Network::Cni);
        let theirs = ConfigMap {
            metadata: kube::api::ObjectMeta { name: Some(MAP.into()), ..Default::default() },
            ..ConfigMap::default()
        };
        maps.create(&kube::api::PostParams::default(), &theirs).await.expect("created");
        publish(&client, &host.cluster).await.expect("left alone");
        assert!(maps.get_opt(MAP).await.expect("an answer").is_some());
    }

    #[test]
    fn a_network_that_this_host_cannot_follow_is_in_its_status_until_it_is_the_same_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = host();
        host.cluster.name = dir.path().display().to_string();
        assert_eq!(notice(&host), None);
        put_notice(&host, Some("the network is 10.6.0.0/16 now")).expect("written");
        let said = notice(&host).expect("a notice");
        assert!(said.contains("the network is 10.6.0.0/16 now") && said.contains("ferrokube reset"), "{said}");
        for _ in 0..2 {
            put_notice(&host, None).expect("removed");
        }
        assert_eq!(notice(&host), None);
    }
}
