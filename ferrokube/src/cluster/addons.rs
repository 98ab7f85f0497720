//! Objects that every cluster of ours has besides upstream's bootstrap objects: the DNS Service and the rights of who
//! answers it. Applied at each start, so that a new version brings its own.

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use crate::api::Identity;
use crate::apply::put;
use crate::config::{Cluster, Host};

fn objects(cluster: &Cluster) -> Vec<(&'static str, Value)> {
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port, "targetPort": port});
    let addresses = cluster.dns_ips();
    let mut spec = json!({"clusterIP": addresses[0], "ports": [port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)]});
    if addresses.len() > 1 {
        spec["ipFamilyPolicy"] = "PreferDualStack".into();
        spec["clusterIPs"] = json!(addresses);
    }
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true",
        // DNS is bound to its addresses on every node: kube-proxy has nothing to do with it.
        "service.kubernetes.io/service-proxy-name": "ferrokube-dns"});
    vec![
        (
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": Identity::DNS_ACCOUNT, "namespace": "kube-system"}}),
        ),
        (
            "clusterroles",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ]}),
        ),
        (
            "clusterrolebindings",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": "system:coredns"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
                "subjects": [{"kind": "ServiceAccount", "name": Identity::DNS_ACCOUNT, "namespace": "kube-system"}]}),
        ),
        // Its configuration, and what it says of one that can't be used.
        (
            "roles",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "system:coredns", "namespace": "kube-system"},
            "rules": [
                {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": dns::CONFIG_MAPS,
                 "verbs": ["get", "list", "watch"]},
                {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
            ]}),
        ),
        (
            "rolebindings",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": "system:coredns", "namespace": "kube-system"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "system:coredns"},
                "subjects": [{"kind": "ServiceAccount", "name": Identity::DNS_ACCOUNT, "namespace": "kube-system"}]}),
        ),
        (
            "services",
            json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
                "spec": spec}),
        ),
    ]
}

/// Creates or updates them all.
pub async fn apply(client: kube::Client, cluster: &Cluster) -> Result<()> {
    for (plural, object) in objects(cluster) {
        put(&client, plural, &object).await?;
    }
    Ok(())
}

/// The labels of the node: its role, as kubeadm writes it, and those of `--node-label`. The node may not give itself a
/// role, and what is no longer asked for is taken back, so they are not the kubelet's to set. Waits for the node.
pub async fn label_node(client: &kube::Client, host: &Host) -> Result<()> {
    await_condition(Api::<Node>::all(client.clone()), &host.node_name, |node: Option<&Node>| node.is_some()).await?;
    put(client, "nodes", &node_labels(host)).await
}

fn node_labels(host: &Host) -> Value {
    let mut labels = host.options.labels();
    labels.insert("node-role.kubernetes.io/control-plane".into(), String::new());
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": host.node_name, "labels": labels}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_its_role_and_the_labels_that_are_asked_for() {
        let mut host = crate::config::tests::host(std::path::Path::new("/nowhere"));
        let role = "node-role.kubernetes.io/control-plane";
        assert_eq!(node_labels(&host)["metadata"]["labels"], json!({role: ""}));
        host.options.node_label = Some(vec!["zone=a".into(), "bare=".into()]);
        assert_eq!(node_labels(&host)["metadata"]["labels"], json!({role: "", "zone": "a", "bare": ""}));
    }

    #[tokio::test]
    async fn a_label_that_is_no_longer_asked_for_goes_and_a_persons_own_stays() {
        let (client, _server) = crate::api::tests::admin().await;
        let mut host = crate::config::tests::host(std::path::Path::new("/nowhere"));
        let nodes = Api::<Node>::all(client.clone());
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "labels": {"mine": "x"}}});
        let node: Node = serde_json::from_value(node).expect("a node");
        nodes.create(&kube::api::PostParams::default(), &node).await.expect("made");
        let role = "node-role.kubernetes.io/control-plane";
        for (asked, expected) in
            [(Some(vec!["zone=a".to_owned()]), vec!["mine", role, "zone"]), (None, vec!["mine", role])]
        {
            host.options.node_label = asked;
            label_node(&client, &host).await.expect("labelled");
            let labels = nodes.get("node").await.expect("there").metadata.labels.unwrap_or_default();
            assert_eq!(labels.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        }
    }
}
