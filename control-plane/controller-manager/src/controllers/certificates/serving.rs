//! kubelet-serving-approving-controller: approves the certificate that a kubelet serves with, for names and addresses that
//! are its own. Upstream leaves this to whoever runs the cluster; off by default, and on in ours.
//!
//! A kubelet tells its node's addresses itself: one that claims the API server's, or another node's, would get a
//! certificate to pass for it. So what two nodes tell, or a node and the `kubernetes` Service, is nobody's.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::{Delta, Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::request::Request;
use super::{APPROVED, DENIED, certificate, conclude, has};
use crate::runner::Work;
use crate::setup::{Selector, Setup};

const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Where the API server tells that it is.
const API_SERVERS: Selector = Selector("metadata.name=kubernetes");
const WORKERS: usize = 1;
/// A node may tell its addresses later.
const AGAIN: Duration = Duration::from_secs(10);
const MESSAGE: &str = "Auto approving kubelet serving certificate: its names and addresses are the node's own.";

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let requests = setup.queue_own::<Csr>(&queue);
    let nodes = setup.watch::<Node>();
    let slices = setup.on_selected(API_SERVERS, |_: &Delta<EndpointSlice>| {});
    let executor = setup.executor("certificate-controller");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, now| {
        let Some(csr) = requests.get(key) else { return Plan::default() };
        reconcile(&csr, &nodes.list(), &servers(&slices.list()), now)
    }));
}

/// Addresses of API servers.
fn servers(slices: &[Arc<EndpointSlice>]) -> BTreeSet<IpAddr> {
    let ours = slices.iter().filter(|slice| slice.metadata.namespace.as_deref() == Some("default"));
    let addresses = ours.flat_map(|slice| slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses));
    addresses.filter_map(|address| address.parse().ok()).collect()
}

fn reconcile(csr: &Csr, nodes: &[Arc<Node>], servers: &BTreeSet<IpAddr>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if csr.spec.signer_name != SIGNER || has(csr, APPROVED) || has(csr, DENIED) || certificate(csr).is_some() {
        return Plan::nothing("it is another's to approve, or decided");
    }
    match own(csr, nodes, servers) {
        Ok(()) => plan.push(conclude(csr, "approval", APPROVED, "AutoApproved", MESSAGE.into(), now)),
        // Somebody may still approve it by hand, and the node may tell more of itself.
        Err(why) => plan.requeue(AGAIN).because(why),
    };
    plan
}

/// Whether a node asks, for what is its own; or why not.
fn own(csr: &Csr, nodes: &[Arc<Node>], servers: &BTreeSet<IpAddr>) -> Result<(), &'static str> {
    let request = Request::parse(&csr.spec.request.0).map_err(|_| "the request can't be read")?;
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    request.check_kubelet_serving(usages).map_err(|_| "it is no request of a kubelet's")?;
    if csr.spec.username.as_deref() != Some(request.common_name.as_str()) {
        return Err("who asks is not whom the certificate names");
    }
    let of = |node: &Node| node.metadata.name.as_ref().map(|name| format!("system:node:{name}"));
    let (own, others): (Vec<_>, Vec<_>) =
        nodes.iter().partition(|node| of(node).as_deref() == Some(request.common_name.as_str()));
    let node = own.first().ok_or("there is no such node yet")?;
    let told: BTreeSet<&str> = addresses(node).chain(node.metadata.name.as_deref()).collect();
    if !request.dns.iter().all(|name| told.contains(name.as_str())) {
        return Err("a name is not the node's");
    }
    let ips = |node: &Node| addresses(node).filter_map(|text| text.parse().ok()).collect::<BTreeSet<IpAddr>>();
    let theirs: BTreeSet<IpAddr> = others.iter().flat_map(|node| ips(node)).collect();
    let (ours, free) = (ips(node), |ip: &IpAddr| !theirs.contains(ip) && !servers.contains(ip));
    if !request.ips.iter().all(|ip| ours.contains(ip) && free(ip)) {
        return Err("an address is not the node's, or another's as well");
    }
    Ok(())
}

fn addresses(node: &Node) -> impl Iterator<Item = &str> {
    node.status.iter().flat_map(|status| status.addresses.iter().flatten()).map(|one| one.address.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::certificates::request::tests::{NODE, SERVING};
    use serde_json::json;
    use testkit::model::from;

    fn csr(user: &str, request: &str) -> Csr {
        let mut csr: Csr = from(json!({"metadata": {"name": "c"}, "spec": {"request": "", "signerName": SIGNER,
            "username": user, "usages": ["digital signature", "server auth"]}}));
        csr.spec.request = k8s_openapi::ByteString(request.as_bytes().to_vec());
        csr
    }

    fn node(name: &str, address: &str) -> Arc<Node> {
        Arc::new(from(json!({"metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}})))
    }

    /// The request of [`SERVING`] names DNS:a and IP:10.0.0.1.
    #[test]
    fn a_node_has_a_certificate_for_its_own_names_alone() {
        let asks = csr("system:node:a", SERVING);
        let said = |nodes: &[Arc<Node>], servers: &[[u8; 4]]| {
            own(&asks, nodes, &servers.iter().map(|ip| IpAddr::from(*ip)).collect())
        };
        assert_eq!(said(&[node("a", "10.0.0.1"), node("b", "10.0.0.2")], &[[10, 0, 0, 2]]), Ok(()));
        assert_eq!(said(&[], &[]), Err("there is no such node yet"));
        let another = Err("an address is not the node's, or another's as well");
        assert_eq!(said(&[node("a", "10.0.0.3")], &[]), another);
        assert_eq!(said(&[node("a", "10.0.0.1"), node("b", "10.0.0.1")], &[]), another, "another node tells it too");
        assert_eq!(said(&[node("a", "10.0.0.1")], &[[10, 0, 0, 1]]), another, "it is the API server's");
        let by = |user: &str, request: &str| own(&csr(user, request), &[node("a", "10.0.0.1")], &BTreeSet::new());
        assert_eq!(by("system:node:b", SERVING), Err("who asks is not whom the certificate names"));
        assert_eq!(by("system:node:a", NODE), Err("it is no request of a kubelet's"));
    }

    #[test]
    fn what_is_decided_or_for_others_is_left_alone() {
        let (now, nodes) = (Timestamp::UNIX_EPOCH, [node("a", "10.0.0.1")]);
        let steps = |csr: &Csr| reconcile(csr, &nodes, &BTreeSet::new(), now).steps.len();
        let mut asks = csr("system:node:a", SERVING);
        assert_eq!(steps(&asks), 1);
        asks.status = from(json!({"conditions": [{"type": "Denied", "status": "True"}]}));
        assert_eq!(steps(&asks), 0);
        let mut other = csr("system:node:a", SERVING);
        other.spec.signer_name = "example.com/mine".into();
        assert_eq!(steps(&other), 0);
    }
}
