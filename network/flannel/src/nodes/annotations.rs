//! A host's lease as annotations of its Node, as upstream writes it. Pure. Caller: the Kubernetes subnet manager.
//!
//! ```text
//! spec.podCIDRs: [10.5.34.0/24]                                      the subnets, given by the controller manager
//! flannel.alpha.coreos.com/kube-subnet-manager: "true"               the rest is told
//! flannel.alpha.coreos.com/backend-type: vxlan
//! flannel.alpha.coreos.com/backend-data: '{"VNI":1,"VtepMAC":"c6:5b:…"}'   and backend-v6-data
//! flannel.alpha.coreos.com/public-ip: 192.0.2.7                      and public-ipv6
//! flannel.alpha.coreos.com/public-ip-overwrite: 203.0.113.7          written by a person: what is told instead
//! ```

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use meta::Prefix;
use serde_json::{Map, Value, json};

use crate::config::NetConf;
use crate::lease::{Attributes, Lease, MAX_BYTES, Subnets};

/// The condition of nodes that have no network: ours to take back.
const UNAVAILABLE: &str = "NetworkUnavailable";

/// Names of annotations that begin with what `--kube-annotation-prefix` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// `flannel.alpha.coreos.com` becomes `flannel.alpha.coreos.com/`, `a.b/c` becomes `a.b/c-`.
    pub fn new(prefix: &str) -> Result<Names, String> {
        let slashes = prefix.matches('/').count();
        if prefix.is_empty() || slashes > 1 {
            return Err(format!("{prefix:?} is no prefix of annotations such as flannel.alpha.coreos.com"));
        }
        let mut prefix = prefix.to_owned();
        if slashes == 0 {
            prefix.push('/');
        } else if !prefix.ends_with(['/', '-']) {
            prefix.push('-');
        }
        Ok(Names { prefix })
    }

    fn of(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn get<'n>(&self, node: &'n Node, name: &str) -> Option<&'n str> {
        let all = node.metadata.annotations.as_ref()?;
        all.get(&self.of(name)).map(String::as_str).filter(|text| text.len() <= MAX_BYTES)
    }

    /// The lease of a node; none where flannel has not been yet.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn lease(&self, node: &Node) -> Result<Option<Lease>, String> {
        if self.get(node, "kube-subnet-manager") != Some("true") {
            return Ok(None);
        }
        let Some(subnets) = subnets(node)? else { return Ok(None) };
        let address = |name: &str| -> Result<Option<IpAddr>, String> {
            let Some(text) = self.get(node, name).filter(|text| !text.is_empty()) else { return Ok(None) };
            text.parse().map(Some).map_err(|_| format!("{}: {text:?} is no address", self.of(name)))
        };
        let data = |name: &str| -> Result<Option<Value>, String> {
            let Some(text) = self.get(node, name).filter(|text| !text.is_empty()) else { return Ok(None) };
            let value: Value = serde_json::from_str(text).map_err(|_| format!("{}: it is not JSON", self.of(name)))?;
            Ok(Some(value).filter(|value| !value.is_null()))
        };
        let (v4, v6) = (address("public-ip")?, address("public-ipv6")?);
        let attributes = Attributes {
            public_ip: v4.and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }),
            public_ipv6: v6.and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }),
            backend_type: self.get(node, "backend-type").unwrap_or_default().to_owned(),
            data: data("backend-data")?,
            data6: data("backend-v6-data")?,
        };
        Ok(Some(Lease { subnets, attributes }))
    }

    /// What this node tells of itself, with what a person wrote there instead of its addresses.
    pub fn overwritten(&self, node: &Node, own: &Attributes) -> Attributes {
        let address = |name: &str| self.get(node, name).and_then(|text| text.parse::<IpAddr>().ok());
        let mut own = own.clone();
        if let Some(IpAddr::V4(ip)) = address("public-ip-overwrite") {
            own.public_ip = Some(ip);
        }
        if let Some(IpAddr::V6(ip)) = address("public-ipv6-overwrite") {
            own.public_ipv6 = Some(ip);
        }
        own
    }

    /// The strategic merge patch of the node's status that tells it; none when it is told already.
    pub fn patch(&self, node: &Node, own: &Attributes) -> Option<Value> {
        let json = |data: &Option<Value>| data.as_ref().unwrap_or(&Value::Null).to_string();
        let mut wanted = vec![("kube-subnet-manager", "true".to_owned()), ("backend-type", own.backend_type.clone())];
        if let Some(ip) = own.public_ip {
            wanted.extend([("backend-data", json(&own.data)), ("public-ip", ip.to_string())]);
        }
        if let Some(ip) = own.public_ipv6 {
            wanted.extend([("backend-v6-data", json(&own.data6)), ("public-ipv6", ip.to_string())]);
        }
        let same = wanted.iter().all(|(name, value)| self.get(node, name) == Some(value));
        let annotations: Map<String, Value> =
            wanted.into_iter().map(|(name, value)| (self.of(name), Value::String(value))).collect();
        (!same).then(|| json!({"metadata": {"annotations": annotations}}))
    }
}

/// The patch that says that the node has a network.
pub fn available(now: Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"status": {"conditions": [{
        "type": UNAVAILABLE,
        "status": "False",
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    }]}})
}

/// Whether the node says so already.
pub fn is_available(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == UNAVAILABLE && c.status == "False")
}

/// The subnets that a node was given: `podCIDR` says the first again, and is alone where a node was made before there was a
/// list.
pub fn subnets(node: &Node) -> Result<Option<Subnets>, String> {
    let Some(spec) = &node.spec else { return Ok(None) };
    let listed = spec.pod_cidrs.as_deref().unwrap_or_default();
    let all = if listed.is_empty() { spec.pod_cidr.as_slice() } else { listed };
    let mut subnets = Subnets::default();
    for text in all {
        let subnet: Prefix = text.parse().map_err(|error| format!("spec.podCIDRs: {error}"))?;
        let place = if subnet.is_ipv6() { &mut subnets.v6 } else { &mut subnets.v4 };
        place.get_or_insert(subnet.network());
    }
    Ok((subnets != Subnets::default()).then_some(subnets))
}

/// Those of them that are of the network, which may have fewer families than the cluster.
pub fn within(conf: &NetConf, subnets: Subnets) -> Result<Subnets, String> {
    let mut found = Subnets::default();
    for (range, subnet, place, family) in
        [(conf.v4, subnets.v4, &mut found.v4, "IPv4"), (conf.v6, subnets.v6, &mut found.v6, "IPv6")]
    {
        let Some(range) = range else { continue };
        let subnet = subnet.ok_or_else(|| format!("spec.podCIDRs: the node has no {family} range yet"))?;
        if !range.network.covers(&subnet) {
            return Err(format!("spec.podCIDRs: {subnet} is not in flannel's network {}", range.network));
        }
        *place = Some(subnet);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "flannel.alpha.coreos.com";

    fn names() -> Names {
        Names::new(PREFIX).unwrap()
    }

    fn node(annotations: Value, cidrs: &[&str]) -> Node {
        let object = json!({
            "metadata": {"name": "a", "annotations": annotations},
            "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        });
        serde_json::from_value(object).unwrap()
    }

    fn upstreams() -> Value {
        json!({
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"c6:bf:4d:08:ae:67\"}",
            "flannel.alpha.coreos.com/public-ip": "192.168.64.3",
        })
    }

    #[test]
    fn prefixes_are_made_whole_as_upstream_does() {
        let name = |prefix: &str| Names::new(prefix).unwrap().of("public-ip");
        assert_eq!(name("flannel.alpha.coreos.com"), "flannel.alpha.coreos.com/public-ip");
        assert_eq!(name("flannel.alpha.coreos.com/"), "flannel.alpha.coreos.com/public-ip");
        assert_eq!(name("example.com/net"), "example.com/net-public-ip");
        assert!(Names::new("a/b/c").is_err() && Names::new("").is_err());
    }

    #[test]
    fn a_node_of_upstreams_is_a_lease_and_what_we_tell_is_one() {
        let theirs = node(upstreams(), &["10.5.34.0/24"]);
        let lease = names().lease(&theirs).unwrap().unwrap();
        assert_eq!(lease.subnets.to_string(), "10.5.34.0/24");
        assert_eq!(lease.attributes.data, Some(json!({"VNI": 1, "VtepMAC": "c6:bf:4d:08:ae:67"})));
        assert_eq!(names().patch(&theirs, &lease.attributes), None, "it is told already");
        let bare = node(json!({}), &["10.5.34.0/24"]);
        assert_eq!(names().lease(&bare).unwrap(), None);
        let patch = names().patch(&bare, &lease.attributes).unwrap();
        assert_eq!(patch, json!({"metadata": {"annotations": upstreams()}}));
        let hostgw = Attributes { backend_type: "host-gw".into(), data: None, ..lease.attributes };
        let patch = names().patch(&bare, &hostgw).unwrap();
        assert_eq!(patch["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-data"], "null");
        let annotations = patch["metadata"]["annotations"].clone();
        assert_eq!(names().lease(&node(annotations, &["10.5.34.0/24"])).unwrap().unwrap().attributes, hostgw);
    }

    #[test]
    fn what_a_person_wrote_is_told() {
        let own = Attributes { public_ip: Some([192, 0, 2, 1].into()), ..Attributes::default() };
        let told = json!({"flannel.alpha.coreos.com/public-ip-overwrite": "203.0.113.7"});
        let told = names().overwritten(&node(told, &[]), &own);
        assert_eq!(told.address(false), Some("203.0.113.7".parse().unwrap()));
    }

    #[test]
    fn a_range_that_stands_beside_the_list_alone_is_none_of_the_nodes() {
        let mut node = node(json!({}), &["10.5.1.0/24"]);
        let spec = node.spec.as_mut().unwrap();
        spec.pod_cidr = Some("fd00:9::/64".into());
        assert_eq!(subnets(&node).unwrap().unwrap().to_string(), "10.5.1.0/24");
        node.spec.as_mut().unwrap().pod_cidrs = None;
        assert_eq!(subnets(&node).unwrap().unwrap().to_string(), "fd00:9::/64", "older nodes have it alone");
    }

    #[test]
    fn a_node_without_a_range_or_with_a_foreign_one_is_told() {
        let conf = NetConf::parse(br#"{"Network": "10.5.0.0/16"}"#).unwrap();
        let look = |cidrs: &[&str]| subnets(&node(json!({}), cidrs)).map(|s| within(&conf, s.unwrap_or_default()));
        assert_eq!(look(&["10.5.1.0/24", "fd00::/64"]).unwrap().unwrap().to_string(), "10.5.1.0/24");
        assert_eq!(look(&[]).unwrap().unwrap_err(), "spec.podCIDRs: the node has no IPv4 range yet");
        let foreign = look(&["10.6.1.0/24"]).unwrap().unwrap_err();
        assert_eq!(foreign, "spec.podCIDRs: 10.6.1.0/24 is not in flannel's network 10.5.0.0/16");
        assert!(look(&["x"]).unwrap_err().starts_with("spec.podCIDRs: \"x\" is not an address range"));
        let wrong = node(
            json!({"flannel.alpha.coreos.com/kube-subnet-manager": "true", "flannel.alpha.coreos.com/public-ip": "x"}),
            &["10.5.1.0/24"],
        );
        assert_eq!(names().lease(&wrong).unwrap_err(), "flannel.alpha.coreos.com/public-ip: \"x\" is no address");
    }
}
