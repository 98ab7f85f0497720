//! Which node answers for a load balancer's address on the network before it, and which networks a node is on. The
//! controller reads the second and writes the first, each node's announcer the other way round:
//!
//! ```text
//!   Node     ferrokube.io/networks: 192.168.1.0/24,2001:db8::/64          its announcer: what its links are on
//!   Service  ferrokube.io/announced-by: 192.168.1.240=one,2001:db8::7=two   the controller: who answers
//!   Lease    ferrokube.io/announcer: 1767225600000                        its announcer: it is there, every 2 s
//! ```
//!
//! An annotation is anybody's who may write a Service; so it only picks a node, and which address that is about is said by
//! the status, which controllers alone write.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use meta::Prefix;

/// Of a Service: which node announces each of its addresses.
pub const ANNOUNCED_BY: &str = "ferrokube.io/announced-by";
/// Of a Node: the networks of its links. A node without it announces nothing.
pub const NETWORKS: &str = "ferrokube.io/networks";

/// Of a node's Lease: another text each time that its announcer says that it is there.
pub const SIGN: &str = "ferrokube.io/announcer";
/// How often that is, as long as the cluster has addresses that are announced.
pub const SIGN_EVERY: Duration = Duration::from_secs(2);

/// Networks that are told of one node. A machine with more is one with a bridge for each of its guests.
pub const MOST_NETWORKS: usize = 32;
/// Addresses of one Service that are read: one of each family is given.
const MOST_ADDRESSES: usize = 16;

/// What [`ANNOUNCED_BY`] says, as it stands there.
pub fn said(service: &Service) -> Option<&str> {
    service.metadata.annotations.as_ref()?.get(ANNOUNCED_BY).map(String::as_str)
}

/// Writes it. None where no node is named.
pub fn to_say(announcers: &[(IpAddr, String)]) -> Option<String> {
    let all: Vec<String> = announcers.iter().map(|(address, node)| format!("{address}={node}")).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// The addresses of a Service that this node is to announce: those in its status, as addresses of their own, that the
/// annotation gives to it. Whose class is another's are none.
pub fn of_node(service: &Service, node: &str) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let balancer = spec.is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer") && s.load_balancer_class.is_none());
    let named = said(service).filter(|_| balancer).unwrap_or_default().split(',').take(MOST_ADDRESSES);
    let mine = named.filter_map(|pair| pair.split_once('=')).filter(|(_, name)| *name == node);
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = || status.and_then(|b| b.ingress.as_ref()).into_iter().flatten().take(MOST_ADDRESSES);
    let has = |address: &IpAddr| {
        let own = ingress().filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
        own.filter_map(|i| i.ip.as_deref()?.parse::<IpAddr>().ok()).any(|ip| ip == *address)
    };
    mine.filter_map(|(address, _)| address.parse().ok()).filter(has).collect()
}

/// The networks that a node is on. None when it tells none: then nobody announces there.
pub fn networks(node: &Node) -> Option<Vec<Prefix>> {
    let text = node.metadata.annotations.as_ref()?.get(NETWORKS)?;
    Some(text.split(',').take(MOST_NETWORKS).filter_map(|range| range.parse().ok()).collect())
}

/// Writes what [`networks`] reads.
pub fn networks_text(networks: &[Prefix]) -> String {
    let all: Vec<String> = networks.iter().take(MOST_NETWORKS).map(Prefix::to_string).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(says: &str, spec: Value, ingress: Value) -> Service {
        let object = json!({"metadata": {"annotations": {ANNOUNCED_BY: says}}, "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_node_announces_what_it_is_given_of_what_the_service_has() {
        let says = "192.0.2.7=a,2001:db8::7=b,192.0.2.9=a,x=a,192.0.2.8";
        let both = json!([{"ip": "192.0.2.7"}, {"ip": "2001:db8:0::7", "ipMode": "VIP"}, {"hostname": "x"}]);
        let balancer = || json!({"type": "LoadBalancer"});
        let of =
            |service: &Service, node: &str| of_node(service, node).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        let web = service(says, balancer(), both.clone());
        assert_eq!(of(&web, "a"), ["192.0.2.7"], "192.0.2.9 is not the Service's");
        assert_eq!(of(&web, "b"), ["2001:db8::7"]);
        assert!(of(&web, "c").is_empty() && of(&web, "").is_empty());
        let proxied = json!([{"ip": "192.0.2.7", "ipMode": "Proxy"}]);
        assert!(of(&service(says, balancer(), proxied), "a").is_empty(), "a node's own address");
        let classed = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/x"});
        assert!(of(&service(says, classed, both.clone()), "a").is_empty(), "somebody else's");
        assert!(of(&service(says, json!({"type": "ClusterIP"}), both), "a").is_empty());
    }

    #[test]
    fn what_is_said_is_what_is_read() {
        let announcers = [("192.0.2.7".parse().unwrap(), "a".to_owned()), ("::1".parse().unwrap(), "b".to_owned())];
        assert_eq!(to_say(&announcers).as_deref(), Some("192.0.2.7=a,::1=b"));
        assert_eq!(to_say(&[]), None);
        let networks = ["192.0.2.0/24", "2001:db8::/64"].map(|n| n.parse::<Prefix>().unwrap());
        let node = |text: &str| -> Node {
            serde_json::from_value(json!({"metadata": {"annotations": {NETWORKS: text}}})).unwrap()
        };
        assert_eq!(super::networks(&node(&networks_text(&networks))), Some(networks.to_vec()));
        assert_eq!(super::networks(&node("")), Some(vec![]));
        assert_eq!(super::networks(&Node::default()), None);
        let many = vec!["10.0.0.0/8"; 1000].join(",");
        assert_eq!(super::networks(&node(&many)).map(|all| all.len()), Some(MOST_NETWORKS));
    }
}
