//! node-ipam-controller: a range of pod addresses for each node, cut from the cluster's ranges. What is given out is
//! read from the nodes themselves, so nothing is lost or leaked by a restart. One node at a time. A node that was given
//! its range when the cluster had one family gets one of the other behind it, and keeps the first.

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::api::core::v1::Node;
use meta::Prefix;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashSet;

use crate::common::acts;
use crate::config::Config;
use crate::runner::Work;
use crate::setup::Setup;

/// More nodes than this are not served from one cluster range (upstream's limit on mask difference is 16 bits).
const MOST_BITS: u8 = 16;

/// The cluster ranges and how they are cut.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranges {
    /// Cluster range and prefix length of a node's share.
    clusters: Vec<(Prefix, u8)>,
    excluded: Vec<Prefix>,
}

impl Ranges {
    /// Fails with what is wrong about `--cluster-cidr`; empty when nothing is to be given out.
    pub fn of(config: &Config) -> Result<Ranges, String> {
        if !config.allocate_node_cidrs {
            return Ok(Ranges::default());
        }
        if config.cluster_cidrs.is_empty() || config.cluster_cidrs.len() > 2 {
            return Err("one range, or one IPv4 and one IPv6 range, is needed to allocate node CIDRs".into());
        }
        let mut clusters: Vec<(Prefix, u8)> = Vec::new();
        for text in &config.cluster_cidrs {
            let range = parse(text)?.network();
            let v6 = range.is_ipv6();
            let share = if v6 { config.node_cidr_mask_size_ipv6 } else { config.node_cidr_mask_size_ipv4 };
            let bits = share.checked_sub(range.len).filter(|bits| *bits <= MOST_BITS);
            if bits.is_none() || share > range.width() {
                return Err(format!("{range} cannot be cut into node ranges of /{share}"));
            }
            if clusters.iter().any(|(other, _)| other.is_ipv6() == v6) {
                return Err("two ranges must be of different families".into());
            }
            clusters.push((range, share));
        }
        let excluded = config.service_cidrs.iter().map(|c| parse(c)).collect::<Result<_, _>>()?;
        Ok(Ranges { clusters, excluded })
    }

    /// The ranges of whose family a node has none.
    fn lacking<'r>(&'r self, node: &Node) -> impl Iterator<Item = &'r (Prefix, u8)> {
        let has: Vec<bool> = ranges_of(node).map(|c| c.contains(':')).collect();
        self.clusters.iter().filter(move |(range, _)| !has.contains(&range.is_ipv6()))
    }

    /// A free share of a range.
    fn free(&self, (range, share): &(Prefix, u8), used: &HashSet<String>, odd: &[Prefix]) -> Option<String> {
        range
            .subnets(*share)
            .filter(|c| !self.excluded.iter().chain(odd).any(|other| other.overlaps(c)))
            .map(|c| c.to_string())
            .find(|c| !used.contains(c))
    }
}

fn parse(text: &str) -> Result<Prefix, String> {
    text.trim().parse().map_err(|e: meta::prefix::ParsePrefixError| e.to_string())
}

pub fn start(setup: &mut Setup) {
    let Ok(ranges) = Ranges::of(setup.config) else { return };
    if ranges.clusters.is_empty() {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::default();
    let again = queue.clone();
    let waiting: Mutex<HashSet<Key>> = Mutex::default();
    let wanted = ranges.clone();
    let nodes = setup.on(move |delta: &Delta<Node>| {
        let (node, gone) = (delta.object(), matches!(delta, Delta::Deleted(_)));
        let (key, mut waiting) = (Key::of(node.as_ref()), waiting.lock());
        if wanted.lacking(node).next().is_some() && !gone {
            waiting.insert(key.clone());
            again.add(key);
        } else {
            waiting.remove(&key);
        }
        if gone {
            // A freed range may be what a waiting node needs.
            waiting.iter().cloned().for_each(|key| again.add(key));
        }
    });
    let executor = setup.executor("cidrAllocator");
    let work = Work::new(&queue, executor, 1, move |key, _| {
        let Some(node) = nodes.get(key) else { return Plan::default() };
        let all = nodes.list();
        reconcile(&node, all.iter().map(|n| n.as_ref()), &ranges)
    });
    setup.run(work.serial());
}

fn ranges_of(node: &Node) -> impl Iterator<Item = &String> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|s| s.pod_cidrs.as_ref()).into_iter().flatten();
    let one = spec.filter(|s| s.pod_cidrs.is_none()).and_then(|s| s.pod_cidr.as_ref());
    many.chain(one).filter(|c| !c.is_empty())
}

fn reconcile<'a>(node: &Node, all: impl Iterator<Item = &'a Node>, ranges: &Ranges) -> Plan {
    let mut plan = Plan::default();
    let mut lacking = ranges.lacking(node).peekable();
    if lacking.peek().is_none() || node.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let used: HashSet<String> = all.flat_map(ranges_of).cloned().collect();
    // Ranges of another size, given by hand or under another mask, block all that they overlap.
    let is_share = |c: &Prefix| ranges.clusters.iter().any(|(r, share)| r.is_ipv6() == c.is_ipv6() && *share == c.len);
    let odd: Vec<Prefix> = used.iter().filter_map(|c| parse(c).ok()).filter(|c| !is_share(c)).collect();
    // All that it lacks or nothing: a new node begins with a range of each family.
    let free: Option<Vec<String>> = lacking.map(|range| ranges.free(range, &used, &odd)).collect();
    match free {
        Some(free) => {
            let given: Vec<String> = ranges_of(node).cloned().chain(free).collect();
            let body = json!({"spec": {"podCIDR": given[0], "podCIDRs": given}});
            plan.push(acts::patch(node, body));
        }
        None => {
            let name = node.metadata.name.as_deref().unwrap_or("");
            plan.push(acts::normal(node, "CIDRNotAvailable", format!("Node {name} status is now: CIDRNotAvailable")));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::{Action, PatchBody, Verb};

    fn node(name: &str, range: Option<&str>) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        let spec = node.spec.get_or_insert_default();
        spec.pod_cidr = range.map(str::to_owned);
        spec.pod_cidrs = range.map(|r| vec![r.to_owned()]);
        node
    }

    fn ranges(cluster: &[&str], services: &[&str]) -> Result<Ranges, String> {
        Ranges::of(&Config {
            allocate_node_cidrs: true,
            cluster_cidrs: cluster.iter().map(|c| (*c).to_owned()).collect(),
            service_cidrs: services.iter().map(|c| (*c).to_owned()).collect(),
            ..Config::default()
        })
    }

    fn body(plan: &Plan) -> serde_json::Value {
        match plan.actions().filter_map(Action::op).map(|op| &op.verb).next() {
            Some(Verb::Patch { patch: PatchBody::Strategic(body), .. }) => body["spec"].clone(),
            _ => panic!("{plan}"),
        }
    }

    fn given(plan: &Plan) -> String {
        body(plan)["podCIDR"].as_str().unwrap().into()
    }

    fn both(name: &str, given: &[&str]) -> Node {
        let mut node = node(name, given.first().copied());
        node.spec.get_or_insert_default().pod_cidrs = Some(given.iter().map(|c| (*c).to_owned()).collect());
        node
    }

    #[test]
    fn each_node_gets_the_first_free_range_and_keeps_it() {
        let ranges = ranges(&["10.244.0.0/16"], &[]).unwrap();
        let nodes = [node("a", Some("10.244.0.0/24")), node("b", None), node("c", Some("10.244.2.0/24"))];
        assert_eq!(given(&reconcile(&nodes[1], nodes.iter(), &ranges)), "10.244.1.0/24");
        assert!(reconcile(&nodes[0], nodes.iter(), &ranges).is_empty());
    }

    #[test]
    fn ranges_of_services_and_of_other_sizes_are_left_out() {
        let ranges = ranges(&["10.0.0.0/16"], &["10.0.0.0/23"]).unwrap();
        let nodes = [node("a", Some("10.0.2.0/25")), node("b", None)];
        assert_eq!(given(&reconcile(&nodes[1], nodes.iter(), &ranges)), "10.0.3.0/24");
    }

    #[test]
    fn a_full_cluster_says_so_on_the_node() {
        let ranges = ranges(&["10.0.0.0/24"], &[]).unwrap();
        let nodes = [node("a", Some("10.0.0.0/24")), node("b", None)];
        let plan = reconcile(&nodes[1], nodes.iter(), &ranges);
        assert_eq!(plan.to_string(), "event CIDRNotAvailable");
    }

    #[test]
    fn a_node_of_one_family_gets_a_range_of_the_other_behind_what_it_has() {
        let ranges = ranges(&["10.244.0.0/16", "fd42::/48"], &[]).unwrap();
        let old = [
            node("a", Some("10.244.0.0/24")),
            both("b", &["10.244.7.0/24", "fd42::/64"]),
            both("six", &["fd42:0:0:9::/64"]),
        ];
        let plan = |of: usize| reconcile(&old[of], old.iter(), &ranges);
        let expected = json!({"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd42:0:0:1::/64"]});
        assert_eq!(body(&plan(0)), expected);
        assert!(plan(1).is_empty());
        let expected = json!({"podCIDR": "fd42:0:0:9::/64", "podCIDRs": ["fd42:0:0:9::/64", "10.244.1.0/24"]});
        assert_eq!(body(&plan(2)), expected, "the first stays, whichever it is");
        let expected = json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd42:0:0:1::/64"]});
        assert_eq!(body(&reconcile(&node("new", None), old.iter(), &ranges)), expected);
    }

    #[test]
    fn a_node_keeps_what_it_has_where_the_other_family_has_no_range_left() {
        let ranges = ranges(&["10.244.0.0/16", "fd42::/64"], &[]).unwrap();
        let old = [node("a", Some("10.244.0.0/24")), both("b", &["10.244.1.0/24", "fd42::/64"])];
        assert_eq!(reconcile(&old[0], old.iter(), &ranges).to_string(), "event CIDRNotAvailable");
        let alone = self::ranges(&["10.244.0.0/16"], &[]).unwrap();
        assert!(reconcile(&old[1], old.iter(), &alone).is_empty(), "what a cluster has no more is not taken back");
    }

    #[test]
    fn wrong_cluster_ranges_are_refused() {
        assert!(ranges(&[], &[]).is_err());
        assert!(ranges(&["10.0.0.0/25"], &[]).unwrap_err().contains("/24"));
        assert!(ranges(&["10.0.0.0/16", "10.1.0.0/16"], &[]).is_err());
        assert!(ranges(&["10.0.0.0/16", "fd00::/56"], &[]).is_ok());
    }
}
