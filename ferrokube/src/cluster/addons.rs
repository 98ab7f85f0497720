//! Objects that every cluster of ours has besides upstream's bootstrap objects: the DNS Service and the rights of who
//! answers it. Applied at each start, so that a new version brings its own.

use anyhow::{Context, Result};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::config::Cluster;

/// The service account that cluster DNS reads Services with; its name is upstream's CoreDNS account.
pub const DNS_ACCOUNT: &str = "coredns";

fn objects(cluster: &Cluster) -> Vec<(&'static str, Value)> {
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port, "targetPort": port});
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true",
        // DNS is bound to this address on every node: kube-proxy has nothing to do with it.
        "service.kubernetes.io/service-proxy-name": "ferrokube-dns"});
    vec![
        (
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": DNS_ACCOUNT, "namespace": "kube-system"}}),
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
                "subjects": [{"kind": "ServiceAccount", "name": DNS_ACCOUNT, "namespace": "kube-system"}]}),
        ),
        (
            "services",
            json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
                "spec": {"clusterIP": cluster.dns_ip(), "ports": [port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)]}}),
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

/// Applies an object as ours; fields of others stay.
pub async fn put(client: &kube::Client, plural: &str, object: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: api_version.clone(),
        kind: text(&object["kind"]),
        plural: plural.into(),
    };
    let name = text(&object["metadata"]["name"]);
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    match api.patch(&name, &PatchParams::apply("ferrokube").force(), &Patch::Apply(object)).await {
        Err(kube::Error::Api(status)) if apiserver::cache::corrupt::says(status.code, &status.message) => {
            // The cluster must run for somebody to remove it.
            tracing::error!(plural, name, "an object of the cluster's own can't be read, and is left as it is");
            Ok(())
        }
        applied => applied.with_context(|| format!("{plural} {name}")).map(drop),
    }
}
