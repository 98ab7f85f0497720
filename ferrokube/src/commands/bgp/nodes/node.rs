//! What a node says of itself, in a cluster's API or in Calico's datastore, and which neighbours follow of all of them. Pure:
//! values are whatever somebody wrote there. Called by [`super::api`] and [`super::etcd`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bgpd::config::found::{Found, is_host};
use k8s_openapi::api::core::v1::Node as ApiNode;
use serde_json::Value;

use super::Nodes;

/// How many nodes are looked at: Kubernetes says 5,000. Two addresses each are fewer than the neighbours of a speaker.
pub const MAX_NODES: usize = 20_000;
/// Bytes of a value that is shown: what is said of it is for a log.
const SHOWN: usize = 64;

const IPV4: &str = "projectcalico.org/IPv4Address";
const IPV6: &str = "projectcalico.org/IPv6Address";
const NUMBER: &str = "projectcalico.org/ASNumber";
const CLUSTER: &str = "projectcalico.org/RouteReflectorClusterID";

/// A node, as far as a neighbour is made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// One of each family at most.
    pub addresses: Vec<IpAddr>,
    /// Its AS, where it has one of its own.
    pub number: Option<u32>,
    /// It is a route reflector of this cluster.
    pub cluster_id: Option<Ipv4Addr>,
    /// What it says of addresses that can't be: those are left out.
    pub problem: Option<String>,
}

/// What Calico calls the fields, by where they are.
struct Fields<'a> {
    ipv4: Option<&'a str>,
    ipv6: Option<&'a str>,
    number: Option<String>,
    cluster_id: Option<&'a str>,
}

impl Node {
    /// Of a cluster's API: by Calico's annotations, and where these say no address by those that the kubelet knows.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn of_api(node: &ApiNode) -> Result<Node, String> {
        let annotation = |key: &str| {
            let text = node.metadata.annotations.as_ref()?.get(key)?.as_str();
            Some(text).filter(|text| !text.is_empty())
        };
        let fields = Fields {
            ipv4: annotation(IPV4),
            ipv6: annotation(IPV6),
            number: annotation(NUMBER).map(str::to_owned),
            cluster_id: annotation(CLUSTER),
        };
        let mut read = Node::read([IPV4, IPV6, NUMBER, CLUSTER], &fields)?;
        if fields.ipv4.or(fields.ipv6).is_none() {
            let known = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            for internal in known.filter(|known| known.type_ == "InternalIP") {
                read.take("InternalIP", &internal.address, None);
            }
        }
        Ok(read)
    }

    /// Of Calico's datastore: a v3 resource as JSON.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn of_calico(text: &[u8]) -> Result<Node, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let bgp = &value["spec"]["bgp"];
        let text = |field: &str| bgp[field].as_str().filter(|text| !text.is_empty());
        let number = match &bgp["asNumber"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let fields = Fields {
            ipv4: text("ipv4Address"),
            ipv6: text("ipv6Address"),
            number,
            cluster_id: text("routeReflectorClusterID"),
        };
        let names =
            ["spec.bgp.ipv4Address", "spec.bgp.ipv6Address", "spec.bgp.asNumber", "spec.bgp.routeReflectorClusterID"];
        Node::read(names, &fields)
    }

    fn read([ipv4, ipv6, number, cluster]: [&str; 4], fields: &Fields<'_>) -> Result<Node, String> {
        let mut node = Node::default();
        if let Some(text) = &fields.number {
            node.number = Some(as_number(text).ok_or_else(|| wrong(number, text, "the number of an AS"))?);
        }
        if let Some(text) = fields.cluster_id {
            let id = text.parse().map_err(|_| wrong(cluster, text, "a cluster id such as 244.0.0.1"))?;
            node.cluster_id = Some(id);
        }
        for (name, text, v6) in [(ipv4, fields.ipv4, false), (ipv6, fields.ipv6, true)] {
            if let Some(text) = text {
                node.take(name, text, Some(v6));
            }
        }
        Ok(node)
    }

    /// Takes an address, with the length of its network or without: of this family, or any that there is none of yet.
    fn take(&mut self, name: &str, text: &str, v6: Option<bool>) {
        let address = text.split_once('/').map_or(text, |(address, _)| address).parse().ok();
        match address.filter(|address: &IpAddr| is_host(*address) && v6.is_none_or(|v6| v6 == address.is_ipv6())) {
            Some(address) if self.addresses.iter().any(|known| known.is_ipv6() == address.is_ipv6()) => {}
            Some(address) => self.addresses.push(address),
            None => {
                let family = v6.map_or("", |v6| if v6 { "IPv6 " } else { "IPv4 " });
                let why = wrong(name, text, &format!("an {family}address at which a host can be reached"));
                self.problem.get_or_insert(why);
            }
        }
    }
}

fn wrong(name: &str, text: &str, what: &str) -> String {
    let mut end = text.len().min(SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let more = if end < text.len() { "…" } else { "" };
    format!("{name}: {:?}{more} is not {what}", &text[..end])
}

/// A number, or two of 16 bits with a dot between them (RFC 5396), as Calico takes it.
fn as_number(text: &str) -> Option<u32> {
    let number = match text.split_once('.') {
        Some((high, low)) => u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?),
        None => text.parse().ok()?,
    };
    (number != 0).then_some(number)
}

/// The AS of nodes that say none, of Calico's configuration of BGP; none where it says none.
///
/// # Errors
/// What is wrong, in words.
pub fn number_of_all(text: &[u8]) -> Result<Option<u32>, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let number = match &value["spec"]["asNumber"] {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    as_number(&number).map(Some).ok_or_else(|| wrong("spec.asNumber", &number, "the number of an AS"))
}

/// Who is there, and why some nodes are not, by their names; `number` is the AS of those that say none. An address that several
/// say is that of the one who had it `before`, or else of the first by name.
pub fn found(nodes: &Nodes, number: Option<u32>, before: &[Found]) -> (Vec<Found>, BTreeMap<String, String>) {
    let (mut all, mut problems) = (Vec::new(), BTreeMap::new());
    let still = |had: &&Found| {
        nodes.get(&had.name).is_some_and(|node| node.as_ref().is_ok_and(|node| node.addresses.contains(&had.address)))
    };
    let mut taken: BTreeMap<IpAddr, &str> =
        before.iter().filter(still).map(|had| (had.address, had.name.as_str())).collect();
    for (at, (name, read)) in nodes.iter().enumerate() {
        let node = match read {
            _ if at >= MAX_NODES => {
                problems.insert(name.clone(), format!("there are {MAX_NODES} nodes before it"));
                break;
            }
            Ok(node) => node,
            Err(why) => {
                problems.insert(name.clone(), why.clone());
                continue;
            }
        };
        let mut problem = node.problem.clone();
        if node.addresses.is_empty() {
            problem.get_or_insert_with(|| "it says no address".to_owned());
        }
        for address in &node.addresses {
            // Whoever writes an address of another's gets no session of his.
            let owner = *taken.entry(*address).or_insert(name);
            if owner != name {
                problem = Some(format!("{address} is the address of node {owner}, too"));
                continue;
            }
            all.push(Found {
                address: *address,
                name: name.clone(),
                number: node.number.or(number),
                cluster_id: node.cluster_id,
            });
        }
        if let Some(problem) = problem {
            problems.insert(name.clone(), problem);
        }
    }
    (all, problems)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn of_api(annotations: &Value, addresses: &[&str]) -> Result<Node, String> {
        let addresses: Vec<Value> =
            addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let node = json!({"metadata": {"name": "a", "annotations": annotations}, "status": {"addresses": addresses}});
        Node::of_api(&serde_json::from_value(node).expect("a node"))
    }

    fn of_calico(bgp: &Value) -> Result<Node, String> {
        Node::of_calico(json!({"kind": "Node", "spec": {"bgp": bgp}}).to_string().as_bytes())
    }

    #[test]
    fn a_node_of_the_api_is_where_calico_says_or_the_kubelet() {
        let calico = json!({IPV4: "10.0.0.1/24", IPV6: "fd00::1/64", NUMBER: "64513", CLUSTER: "244.0.0.1"});
        let node = of_api(&calico, &["192.0.2.1"]).expect("a node");
        assert_eq!(node.addresses, [ip("10.0.0.1"), ip("fd00::1")]);
        assert_eq!((node.number, node.cluster_id), (Some(64513), Some(Ipv4Addr::new(244, 0, 0, 1))));
        let only = of_api(&json!({IPV4: "10.0.0.1"}), &["192.0.2.1", "fd00::9"]).expect("a node");
        assert_eq!(only.addresses, [ip("10.0.0.1")], "it has BGP over one family");
        let kubelets = of_api(&json!({}), &["192.0.2.1", "192.0.2.2", "fd00::9"]).expect("a node");
        assert_eq!(kubelets.addresses, [ip("192.0.2.1"), ip("fd00::9")]);
        assert_eq!((kubelets.number, kubelets.cluster_id, kubelets.problem), (None, None, None));
    }

    #[test]
    fn a_node_of_calicos_datastore_is_the_same() {
        let node =
            of_calico(&json!({"ipv4Address": "10.0.0.1/24", "asNumber": 64513, "routeReflectorClusterID": "1.0.0.1"}));
        let wanted = Node {
            addresses: vec![ip("10.0.0.1")],
            number: Some(64513),
            cluster_id: Some(Ipv4Addr::new(1, 0, 0, 1)),
            problem: None,
        };
        assert_eq!(node, Ok(wanted));
        assert_eq!(of_calico(&json!({"asNumber": "1.10"})).expect("a node").number, Some(65546));
        assert_eq!(of_calico(&Value::Null), Ok(Node::default()));
        assert_eq!(number_of_all(br#"{"spec": {"asNumber": 64600}}"#), Ok(Some(64600)));
        assert_eq!(number_of_all(br#"{"spec": {}}"#), Ok(None));
        assert!(number_of_all(br#"{"spec": {"asNumber": 0}}"#).is_err());
    }

    #[test]
    fn what_cannot_be_is_named_and_costs_what_it_must() {
        for (bgp, field) in [
            (json!({"asNumber": 0}), "asNumber"),
            (json!({"asNumber": 4_294_967_296_u64}), "asNumber"),
            (json!({"asNumber": -1}), "asNumber"),
            (json!({"asNumber": {"a": 1}}), "asNumber"),
            (json!({"asNumber": "1.99999"}), "asNumber"),
            (json!({"routeReflectorClusterID": "one"}), "routeReflectorClusterID"),
        ] {
            let said = of_calico(&bgp).expect_err("refused");
            assert!(said.starts_with(&format!("spec.bgp.{field}: ")), "{said}");
        }
        assert!(Node::of_calico(b"{").expect_err("refused").starts_with("it is not JSON"));
        for address in ["127.0.0.1/8", "224.0.0.1", "0.0.0.0", "255.255.255.255", "fd00::1", "10.0.0", "none"] {
            let node = of_calico(&json!({"ipv4Address": address, "ipv6Address": "fd00::2/64"})).expect("a node");
            assert_eq!(node.addresses, [ip("fd00::2")], "{address}");
            assert!(node.problem.is_some_and(|said| said.contains(address) && said.contains("IPv4")), "{address}");
        }
        for address in ["::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1", "10.0.0.1"] {
            assert!(of_calico(&json!({"ipv6Address": address})).expect("a node").addresses.is_empty(), "{address}");
        }
        let long = of_calico(&json!({"ipv4Address": "ä".repeat(100_000)})).expect("a node").problem.expect("told");
        assert!(long.len() < 300, "{}", long.len());
    }

    #[test]
    fn of_all_nodes_follow_neighbours_each_address_once() {
        let node = |address: &str, number| Ok(Node { addresses: vec![ip(address)], number, ..Node::default() });
        let mut nodes: Nodes = [
            ("a".to_owned(), node("10.0.0.1", None)),
            ("b".to_owned(), node("10.0.0.2", Some(65001))),
            ("c".to_owned(), node("10.0.0.1", Some(65001))),
            ("d".to_owned(), Err("it is not JSON".to_owned())),
            ("e".to_owned(), Ok(Node::default())),
        ]
        .into();
        let (all, problems) = found(&nodes, Some(64512), &[]);
        let rows: Vec<_> = all.iter().map(|f| (f.name.as_str(), f.address, f.number)).collect();
        assert_eq!(rows, [("a", ip("10.0.0.1"), Some(64512)), ("b", ip("10.0.0.2"), Some(65001))]);
        assert_eq!(problems["c"], "10.0.0.1 is the address of node a, too");
        // One whose name comes before theirs takes nobody's place, unless it is free.
        nodes.insert("0".to_owned(), node("10.0.0.2", Some(65002)));
        let (with, told) = found(&nodes, Some(64512), &all);
        assert_eq!((&with, told["0"].as_str()), (&all, "10.0.0.2 is the address of node b, too"));
        nodes.insert("b".to_owned(), node("10.0.0.3", Some(65001)));
        let (moved, _) = found(&nodes, Some(64512), &all);
        assert!(moved.iter().any(|f| f.name == "0" && f.address == ip("10.0.0.2")), "{moved:?}");
        nodes.remove("0");
        nodes.insert("b".to_owned(), node("10.0.0.2", Some(65001)));
        assert_eq!((problems["d"].as_str(), problems["e"].as_str()), ("it is not JSON", "it says no address"));
        for at in 0..=MAX_NODES as u32 {
            nodes.insert(format!("n{at:06}"), node(&Ipv4Addr::from(0x0b00_0000 + at).to_string(), None));
        }
        let (all, problems) = found(&nodes, None, &[]);
        assert!(all.len() < MAX_NODES && problems.values().any(|why| why.contains("nodes before it")));
    }
}
