//! What a cluster shows to machines that may join: its address and CA to everybody, the right to ask for a kubelet's
//! certificate to who has a token, and what a kubelet is configured with to nodes. kubeadm's names. Applied with the first
//! token: a cluster that nobody joins shows nothing. Pure but for [`apply`].

use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use meta::Ranges;
use serde_json::{Value, json};

use crate::apply::put;
use crate::config::{Cluster, Host};
use crate::fault::Fault;

/// The group of tokens with which machines join, as `kubeadm token create` has it.
pub const JOINERS: &str = "system:bootstrappers:kubeadm:default-node-token";
/// The key beside flannel's configuration that says where leases are, when they are not annotations of nodes.
pub const SUBNETS: &str = "subnet-manager.json";
/// The key beside kubeadm's configuration that says what connects pods: a name of [`Network`].
///
/// [`Network`]: crate::config::Network
pub const NETWORK: &str = "network";
/// The group of nodes.
pub const NODES: &str = "system:nodes";
const APPROVER: &str = "ferrokube:kubelet-serving-approver";
const NODE_DNS: &str = "ferrokube:node-dns";
pub const RBAC: &str = "rbac.authorization.k8s.io/v1";
pub const PUBLIC: &str = "kube-public";
pub const CLUSTER_INFO: &str = "cluster-info";
pub const SYSTEM: &str = "kube-system";
/// What a cluster is made of, as kubeadm has it: ranges among it.
pub const KUBEADM_CONFIG: &str = "kubeadm-config";
pub const KUBELET_CONFIG: &str = "kubelet-config";
/// The key in it.
pub const KUBELET: &str = "kubelet";
/// The label by which a machine that joins knows the cluster for ours.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const OURS: &str = "ferrokube";
/// Roles that upstream has for what follows.
const MAY_ASK: &str = "system:node-bootstrapper";
const MAY_HAVE: &str = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";
const MAY_RENEW: &str = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";

/// Where other machines reach the API server of a host with this address.
pub fn server(host: &Host, node_ip: IpAddr) -> Result<String, Fault> {
    if host.bind_address().is_loopback() {
        let sentence = "the API server listens on loopback, where no other machine reaches it: start the cluster without \
                        --bind-address, or with an address of the network";
        return Err(Fault::failed(sentence));
    }
    let address = host.advertised(node_ip);
    Ok(format!("https://{}", std::net::SocketAddr::new(address, host.cluster.api_port)))
}

/// Shows what joining machines need to know, or brings it up to date.
pub async fn apply(client: &kube::Client, cluster: &Cluster, server: &str, ca: &str) -> Result<()> {
    put_all(client, cluster, objects(cluster, server, ca)).await
}

/// Lets nodes alone do what they need to, and nobody join: for nodes that were given their certificates on this host.
pub async fn apply_rights(client: &kube::Client, cluster: &Cluster) -> Result<()> {
    put_all(client, cluster, for_nodes(cluster)).await
}

/// Brings what nodes read up to date, where it is shown: the cluster may have another family, network or version than at
/// its last start. Nodes that have joined follow.
pub async fn refresh(client: &kube::Client, cluster: &Cluster) -> Result<()> {
    let maps = kube::Api::<ConfigMap>::namespaced(client.clone(), SYSTEM);
    let mut all = Vec::new();
    if is_shown(&maps, KUBEADM_CONFIG).await? {
        all.extend(for_nodes(cluster));
    }
    if is_shown(&maps, KUBELET_CONFIG).await? {
        all.push(("configmaps", kubelet_config(cluster)));
    }
    put_all(client, cluster, all).await
}

/// Of several servers one is told of a second family first. Another, which is not yet, takes it from nobody: what says the
/// cluster's ranges stays as the first has put it.
async fn put_all(client: &kube::Client, cluster: &Cluster, all: Vec<(&'static str, Value)>) -> Result<()> {
    let maps = kube::Api::<ConfigMap>::namespaced(client.clone(), SYSTEM);
    let there = maps.get_opt(KUBEADM_CONFIG).await.with_context(|| format!("ConfigMap {SYSTEM}/{KUBEADM_CONFIG}"))?;
    let mut kept = Vec::new();
    if let Some((pods, services)) = there.and_then(|map| gained(cluster, &map)) {
        tracing::warn!(
            "the cluster has pods in {pods} and Services in {services} by another server, and this one has not yet: \
             `ferrokube up --pod-cidr {pods} --service-cidr {services}` here, too"
        );
        kept.push(KUBEADM_CONFIG);
        if is_shown(&maps, KUBELET_CONFIG).await? {
            kept.push(KUBELET_CONFIG);
        }
    }
    let is_kept = |plural: &str, object: &Value| {
        plural == "configmaps" && object["metadata"]["name"].as_str().is_some_and(|name| kept.contains(&name))
    };
    for (plural, object) in all.iter().filter(|(plural, object)| !is_kept(plural, object)) {
        put(client, plural, object).await?;
    }
    Ok(())
}

/// The ranges that the map of the cluster's configuration says, where they are this one's with a second family.
fn gained(cluster: &Cluster, kubeadm: &ConfigMap) -> Option<(Ranges, Ranges)> {
    // What can't be read is written anew.
    let (pods, services) = super::discovery::ranges(kubeadm).ok()??;
    cluster.gains(&pods, &services).then_some((pods, services))
}

/// Whether a map of ours is there.
async fn is_shown(maps: &kube::Api<ConfigMap>, name: &str) -> Result<bool> {
    let map = maps.get_metadata_opt(name).await.with_context(|| format!("ConfigMap {SYSTEM}/{name}"))?;
    let label = map.as_ref().and_then(|map| map.metadata.labels.as_ref()?.get(MANAGED_BY));
    Ok(label.is_some_and(|by| by == OURS))
}

fn objects(cluster: &Cluster, server: &str, ca: &str) -> Vec<(&'static str, Value)> {
    let mut all = for_nodes(cluster);
    all.extend([
        ("configmaps", map(PUBLIC, CLUSTER_INFO, "kubeconfig", &kubeconfig(server, ca))),
        ("configmaps", kubelet_config(cluster)),
    ]);
    let readers = [
        (PUBLIC, "kubeadm:bootstrap-signer-clusterinfo", "cluster-info", vec![subject("User", "system:anonymous")]),
        (SYSTEM, "kubeadm:kubelet-config", KUBELET_CONFIG, vec![group(NODES), group(JOINERS)]),
    ];
    all.extend(
        readers.into_iter().flat_map(|(namespace, role, name, who)| may_read(namespace, role, name, &["get"], &who)),
    );
    let rule = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]});
    let get_nodes = "kubeadm:get-nodes";
    all.push((
        "clusterroles",
        json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": get_nodes}, "rules": [rule]}),
    ));
    for (name, role, who) in [
        (get_nodes, get_nodes, JOINERS),
        ("kubeadm:kubelet-bootstrap", MAY_ASK, JOINERS),
        ("kubeadm:node-autoapprove-bootstrap", MAY_HAVE, JOINERS),
    ] {
        all.push(("clusterrolebindings", binding("ClusterRole", role, None, name, &[group(who)])));
    }
    all
}

/// The role of who reads a map, and who has it.
fn may_read(namespace: &str, role: &str, name: &str, verbs: &[&str], who: &[Value]) -> [(&'static str, Value); 2] {
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": verbs});
    let metadata = json!({"name": role, "namespace": namespace});
    [
        ("roles", json!({"apiVersion": RBAC, "kind": "Role", "metadata": metadata, "rules": [rule]})),
        ("rolebindings", binding("Role", role, Some(namespace), role, who)),
    ]
}

/// What every node alone needs of a cluster: its rights, and what it follows of the cluster's configuration.
fn for_nodes(cluster: &Cluster) -> Vec<(&'static str, Value)> {
    let (who, verbs) = ([group(NODES), group(JOINERS)], ["get", "list", "watch"]);
    let mut all = rights();
    all.extend(may_read(SYSTEM, "kubeadm:nodes-kubeadm-config", KUBEADM_CONFIG, &verbs, &who));
    // Last: who sees it may read it.
    all.push(("configmaps", kubeadm_config(cluster)));
    all
}

/// What a node alone may do beside upstream's: its proxy and its DNS speak as the node, which has one certificate, and it
/// renews that and its kubelet's.
fn rights() -> Vec<(&'static str, Value)> {
    let role = |name: &str, rules: Value| {
        let metadata = json!({"name": name});
        ("clusterroles", json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": rules}))
    };
    let read = |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["list", "watch"]});
    let approve = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["kubernetes.io/kubelet-serving"], "verbs": ["approve"]});
    // What configures its DNS, and no other map: asked for by name.
    let settings = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": dns::CONFIG_MAPS,
        "verbs": ["get", "list", "watch"]});
    let account = json!({"kind": "ServiceAccount", "name": "certificate-controller", "namespace": SYSTEM});
    let mut all = vec![
        role(
            NODE_DNS,
            json!([read("", "services"), read("", "namespaces"), read("discovery.k8s.io", "endpointslices")]),
        ),
        (
            "roles",
            json!({"apiVersion": RBAC, "kind": "Role", "metadata": {"name": NODE_DNS, "namespace": SYSTEM},
            "rules": [settings]}),
        ),
        ("rolebindings", binding("Role", NODE_DNS, Some(SYSTEM), NODE_DNS, &[group(NODES)])),
        role(APPROVER, json!([approve])),
        ("clusterrolebindings", binding("ClusterRole", APPROVER, None, APPROVER, &[account])),
    ];
    for (name, role) in [
        ("ferrokube:node-proxier", "system:node-proxier"),
        (NODE_DNS, NODE_DNS),
        ("kubeadm:node-autoapprove-certificate-rotation", MAY_RENEW),
    ] {
        all.push(("clusterrolebindings", binding("ClusterRole", role, None, name, &[group(NODES)])));
    }
    all
}

fn map(namespace: &str, name: &str, key: &str, content: &Value) -> Value {
    // JSON is YAML; what is in these maps is read by programs.
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY: OURS}},
        "data": {key: format!("{content:#}\n")}})
}

/// A `RoleBinding` or `ClusterRoleBinding` to the role of this kind and name.
pub fn binding(kind: &str, role: &str, namespace: Option<&str>, name: &str, subjects: &[Value]) -> Value {
    let mut binding = json!({
        "apiVersion": RBAC, "kind": format!("{kind}Binding"), "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": subjects,
    });
    if let Some(namespace) = namespace {
        binding["metadata"]["namespace"] = namespace.into();
    }
    binding
}

/// A group as a subject of a binding.
pub fn group(name: &str) -> Value {
    subject("Group", name)
}

fn subject(kind: &str, name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
}

/// Where the API server is and whom to believe; for nobody in particular.
fn kubeconfig(server: &str, ca: &str) -> Value {
    use base64::Engine as _;
    let ca = base64::prelude::BASE64_STANDARD.encode(ca);
    json!({"apiVersion": "v1", "kind": "Config", "preferences": {}, "contexts": null, "users": null, "current-context": "",
        "clusters": [{"name": "", "cluster": {"server": server, "certificate-authority-data": ca}}]})
}

fn kubelet_config(cluster: &Cluster) -> Value {
    let config = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "clusterDNS": cluster.dns_ips(), "clusterDomain": cluster.cluster_domain,
        // The API server believes no certificate that a kubelet has signed itself.
        "rotateCertificates": true, "serverTLSBootstrap": true, "staticPodPath": "/etc/kubernetes/manifests",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}},
        "authorization": {"mode": "Webhook"}});
    map(SYSTEM, KUBELET_CONFIG, KUBELET, &config)
}

fn kubeadm_config(cluster: &Cluster) -> Value {
    let config = json!({"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "clusterName": cluster.name,
        "kubernetesVersion": meta::version::RELEASE,
        "networking": {"dnsDomain": cluster.cluster_domain, "podSubnet": cluster.pod_cidr.to_string(),
            "serviceSubnet": cluster.service_cidr.to_string()}});
    let mut map = map(SYSTEM, KUBEADM_CONFIG, "ClusterConfiguration", &config);
    map["data"][NETWORK] = cluster.network().name().into();
    map
}

/// What nodes read of a cluster: the kubelet's configuration and kubeadm's.
#[cfg(test)]
pub fn shown(cluster: &Cluster) -> [k8s_openapi::api::core::v1::ConfigMap; 2] {
    let maps = [kubelet_config(cluster), kubeadm_config(cluster)];
    maps.map(|map| serde_json::from_value(map).expect("a map"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<(&'static str, Value)> {
        let host = crate::config::tests::host(std::path::Path::new("/nowhere"));
        objects(&host.cluster, "https://192.0.2.1:6443", "PEM")
    }

    #[test]
    fn everybody_may_read_one_map_and_nothing_else() {
        let all = all();
        let names: Vec<_> = all.iter().filter(|(_, o)| o.to_string().contains("system:anonymous")).collect();
        assert_eq!(names.len(), 1);
        assert_eq!(
            (&names[0].1["metadata"]["namespace"], &names[0].1["kind"]),
            (&json!(PUBLIC), &json!("RoleBinding"))
        );
        let role =
            all.iter().find(|(plural, o)| *plural == "roles" && o["metadata"]["namespace"] == PUBLIC).expect("a role");
        assert_eq!(role.1["rules"][0]["resourceNames"], json!(["cluster-info"]));
        assert_eq!(role.1["rules"][0]["verbs"], json!(["get"]));
    }

    #[tokio::test]
    async fn an_api_server_takes_them_all_and_again() {
        let (client, _server) = crate::api::tests::admin().await;
        let host = crate::config::tests::host(std::path::Path::new("/nowhere"));
        for _ in 0..2 {
            apply(&client, &host.cluster, "https://192.0.2.1:6443", "PEM").await.expect("applied");
        }
    }

    #[tokio::test]
    async fn what_is_shown_says_what_the_cluster_has_by_now_and_what_is_not_is_not() {
        let (client, _server) = crate::api::tests::admin().await;
        let mut cluster = crate::config::tests::host(std::path::Path::new("/nowhere")).cluster;
        let maps = kube::Api::<ConfigMap>::namespaced(client.clone(), SYSTEM);
        refresh(&client, &cluster).await.expect("nothing to do");
        assert!(maps.get_opt(KUBEADM_CONFIG).await.expect("asked").is_none());
        apply_rights(&client, &cluster).await.expect("applied");
        cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        cluster.service_cidr = "10.43.0.0/16,fd43::/112".parse().expect("ranges");
        refresh(&client, &cluster).await.expect("refreshed");
        let map = maps.get(KUBEADM_CONFIG).await.expect("there");
        let ranges = crate::joining::discovery::ranges(&map).expect("ranges");
        assert_eq!(ranges, Some((cluster.pod_cidr, cluster.service_cidr)));
        assert!(maps.get_opt(KUBELET_CONFIG).await.expect("asked").is_none(), "machines that join are shown nothing");
    }

    #[tokio::test]
    async fn a_server_that_is_not_told_yet_takes_no_family_back() {
        let (client, _server) = crate::api::tests::admin().await;
        let before = crate::config::tests::host(std::path::Path::new("/nowhere")).cluster;
        let mut cluster = before.clone();
        cluster.pod_cidr = format!("{},fd42::/56", before.pod_cidr).parse().expect("ranges");
        cluster.service_cidr = format!("{},fd43::/112", before.service_cidr).parse().expect("ranges");
        let maps = kube::Api::<ConfigMap>::namespaced(client.clone(), SYSTEM);
        apply(&client, &cluster, "https://192.0.2.1:6443", "PEM").await.expect("shown");
        let data = async |name| maps.get(name).await.expect("there").data;
        let shown = (data(KUBEADM_CONFIG).await, data(KUBELET_CONFIG).await);
        refresh(&client, &before).await.expect("its next start");
        apply(&client, &before, "https://192.0.2.2:6443", "PEM").await.expect("its next token");
        apply_rights(&client, &before).await.expect("its next node");
        assert_eq!((data(KUBEADM_CONFIG).await, data(KUBELET_CONFIG).await), shown);
        let info = kube::Api::<ConfigMap>::namespaced(client.clone(), PUBLIC).get(CLUSTER_INFO).await.expect("there");
        assert!(format!("{:?}", info.data).contains("192.0.2.2"), "the rest is its to say");
        cluster.name = "other".into();
        refresh(&client, &cluster).await.expect("refreshed");
        assert_ne!(data(KUBEADM_CONFIG).await, shown.0, "who is told says what it has");
    }
}
