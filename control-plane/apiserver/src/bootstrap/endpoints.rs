//! The `kubernetes` Service of the default namespace and the endpoints behind it: the server's own address.

use std::net::IpAddr;

use meta::Status;
use serde_json::{Value, json};

use crate::server::Core;

impl Core {
    /// The address that clients inside the cluster reach the server at.
    pub fn advertised(&self) -> IpAddr {
        let told = *self.advertised.lock();
        told.unwrap_or(match self.config.bind_address {
            address if address.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            address => address,
        })
    }

    /// The host has another address now: the Service leads there.
    pub async fn advertise(&self, address: IpAddr) -> Result<(), Status> {
        *self.advertised.lock() = Some(address);
        self.kubernetes_service().await
    }

    /// Makes the Service, its Endpoints and its EndpointSlice say where the server is.
    pub async fn kubernetes_service(&self) -> Result<(), Status> {
        let port = self.port.load(std::sync::atomic::Ordering::Relaxed);
        let address = self.advertised();
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let first = crate::service::Range::parse(&self.config.service_cluster_ip_range)
            .and_then(|range| range.first())
            .map_err(|reason| Status::internal(format!("--service-cluster-ip-range: {reason}")))?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {
                "clusterIP": first.to_string(), "clusterIPs": [first.to_string()], "type": "ClusterIP",
                "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            },
        });
        self.keep(&service, |old| {
            let mut new = old.clone();
            new["spec"]["ports"] = service["spec"]["ports"].clone();
            new
        })
        .await?;
        if address.is_loopback() {
            tracing::info!(%address, "the kubernetes Service leads nowhere: a loopback address is no endpoint; see --advertise-address");
            return Ok(());
        }
        let label = "endpointslice.kubernetes.io/skip-mirror";
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {label: "true"}},
            "subsets": [{
                "addresses": [{"ip": address.to_string()}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }],
        });
        self.keep(&endpoints, |old| {
            let mut new = old.clone();
            new["subsets"] = endpoints["subsets"].clone();
            new
        })
        .await?;
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        self.keep(&slice, |old| {
            let mut new = old.clone();
            new["endpoints"] = slice["endpoints"].clone();
            new["ports"] = slice["ports"].clone();
            new
        })
        .await
    }

    async fn keep(&self, wanted: &Value, change: impl Fn(&Value) -> Value + Send + Sync) -> Result<(), Status> {
        if self.ensure(wanted).await? {
            return Ok(());
        }
        let Some(served) = self.served_of(wanted) else { return Ok(()) };
        let kind = &served.kind;
        self.amend(&kind.group, &kind.plural, "default", "kubernetes", |old| Ok(change(old))).await
    }
}
