//! The `kubernetes` Service of the default namespace and the endpoints behind it: this server, or all that share its store
//! and live ([`masterleases`]), as `--endpoint-reconciler-type` says. I/O: the store.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meta::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::masterleases;
use crate::config::{Config, EndpointReconciler};
use crate::registry::verbs::Verbs;

/// Where the server says that it is.
pub struct Advertised {
    /// `--advertise-address`, until the host has another.
    told: Mutex<Option<IpAddr>>,
    bound: IpAddr,
    port: u16,
    /// `--service-cluster-ip-range`.
    range: String,
    /// `--etcd-prefix`.
    root: String,
    reconciler: EndpointReconciler,
}

impl Advertised {
    pub fn new(config: &Config, port: u16) -> Advertised {
        Advertised {
            told: Mutex::new(config.advertise_address),
            bound: config.bind_address,
            port,
            range: config.service_cluster_ip_range.clone(),
            root: config.etcd_prefix.clone(),
            reconciler: config.endpoint_reconciler,
        }
    }

    /// The address that clients inside the cluster reach the server at.
    pub fn address(&self) -> IpAddr {
        let told = *self.told.lock();
        told.unwrap_or(match self.bound {
            address if address.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            address => address,
        })
    }

    /// The host has another address now: the Service leads there.
    pub async fn move_to(&self, address: IpAddr, verbs: &Verbs) -> Result<(), Status> {
        let before = self.told.lock().replace(address).filter(|before| *before != address);
        if let Some(before) = before
            && self.reconciler == EndpointReconciler::Lease
        {
            masterleases::end(&*verbs.objects.store, &self.root, before).await.map_err(unsaid)?;
        }
        self.kubernetes_service(verbs).await
    }

    /// Makes the Service, its Endpoints and its EndpointSlice say where the server is.
    pub async fn kubernetes_service(&self, verbs: &Verbs) -> Result<(), Status> {
        self.service(verbs).await?;
        let address = self.address();
        if self.reconciler == EndpointReconciler::None {
            return Ok(());
        }
        if address.is_loopback() {
            tracing::info!(%address, "the kubernetes Service leads nowhere: a loopback address is no endpoint; see --advertise-address");
            return Ok(());
        }
        let mut servers = BTreeSet::from([address]);
        if self.reconciler == EndpointReconciler::Lease {
            let store = &*verbs.objects.store;
            masterleases::renew(store, &self.root, address).await.map_err(unsaid)?;
            servers.extend(masterleases::living(store, &self.root).await.map_err(unsaid)?);
        }
        self.lead_to(servers, verbs).await
    }

    /// The Service leads here no longer, if it leads elsewhere.
    pub async fn leave(&self, verbs: &Verbs) -> Result<(), Status> {
        let store = &*verbs.objects.store;
        masterleases::end(store, &self.root, self.address()).await.map_err(unsaid)?;
        let servers = masterleases::living(store, &self.root).await.map_err(unsaid)?;
        if servers.is_empty() { Ok(()) } else { self.lead_to(servers, verbs).await }
    }

    async fn service(&self, verbs: &Verbs) -> Result<(), Status> {
        let port = self.port;
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let first = crate::service::Ranges::parse(&self.range)
            .and_then(|ranges| ranges.default_range().first())
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
        keep(verbs, &service, |old| {
            let mut new = old.clone();
            new["spec"]["ports"] = service["spec"]["ports"].clone();
            new
        })
        .await
    }

    /// All servers have one port.
    async fn lead_to(&self, servers: BTreeSet<IpAddr>, verbs: &Verbs) -> Result<(), Status> {
        let (port, is_ipv4) = (self.port, self.address().is_ipv4());
        let servers: Vec<String> =
            servers.iter().filter(|server| server.is_ipv4() == is_ipv4).map(IpAddr::to_string).collect();
        let label = "endpointslice.kubernetes.io/skip-mirror";
        let addresses: Vec<Value> = servers.iter().map(|server| json!({"ip": server})).collect();
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {label: "true"}},
            "subsets": [{
                "addresses": addresses,
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }],
        });
        keep(verbs, &endpoints, |old| {
            let mut new = old.clone();
            new["subsets"] = endpoints["subsets"].clone();
            new
        })
        .await?;
        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
        let ready: Vec<Value> =
            servers.iter().map(|server| json!({"addresses": [server], "conditions": {"ready": true}})).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": ready,
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        keep(verbs, &slice, |old| {
            let mut new = old.clone();
            new["endpoints"] = slice["endpoints"].clone();
            new["ports"] = slice["ports"].clone();
            new
        })
        .await
    }
}

fn unsaid(error: crate::storage::StoreError) -> Status {
    Status::internal(format!("the API servers of this store: {error}"))
}

async fn keep(verbs: &Verbs, wanted: &Value, change: impl Fn(&Value) -> Value + Send + Sync) -> Result<(), Status> {
    if verbs.ensure(wanted).await? {
        return Ok(());
    }
    let Some(served) = verbs.served_of(wanted) else { return Ok(()) };
    let kind = &served.kind;
    verbs.amend(&kind.group, &kind.plural, "default", "kubernetes", |old| Ok(change(old))).await
}
