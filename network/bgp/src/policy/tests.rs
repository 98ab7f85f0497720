//! Filters as files have them: what fits, what is changed, and what a wrong one is told.

use std::net::Ipv4Addr;

use super::*;
use crate::attribute::{AsPath, NextHop};

fn filter(text: &str) -> Filter {
    serde_saphyr::from_str(text).expect("a filter")
}

fn refused(text: &str) -> String {
    serde_saphyr::from_str::<Filter>(text).expect_err("wrong").to_string()
}

fn route(prefix: &str) -> Route<'static> {
    Route {
        prefix: prefix.parse().expect("a prefix"),
        source: Source::External,
        peer: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        peer_type: Some(PeerType::External),
        interface: Some("eth0"),
        own_address: Some(Ipv4Addr::new(192, 0, 2, 9).into()),
    }
}

fn set() -> Attributes {
    let mut set = Attributes::local(NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)));
    set.as_path = AsPath::sequence(&[65001, 65002]);
    set.add_community("64512:7".parse().expect("a community"));
    set
}

/// Whether a filter of one rule takes a route of this prefix.
fn takes(pattern: &str, prefix: &str) -> bool {
    let filter = filter(&format!("name: x\nrules: [{{match: {pattern}, action: accept}}]\n"));
    filter.judge(&route(prefix), 64512, &mut set()) == Verdict::Accept
}

#[test]
fn prefixes_fit_by_range_and_length() {
    let range = "{prefixes: [{prefix: 10.0.0.0/8, lengths: {min: 24, max: 26}}]}";
    let fits = |prefix| takes(range, prefix);
    assert!(fits("10.1.2.0/24") && fits("10.1.2.0/26") && !fits("10.1.0.0/16") && !fits("10.1.2.0/27"));
    assert!(!fits("11.1.2.0/24") && !fits("fd00::/24"));
    assert!(takes("{prefixes: [{prefix: 10.0.0.0/8}]}", "10.0.0.0/8"), "without lengths that one alone");
    assert!(!takes("{prefixes: [{prefix: 10.0.0.0/8}]}", "10.0.0.0/9"));
    assert!(takes("{prefixes: [{prefix: 0.0.0.0/0, lengths: {max: 32}}]}", "10.0.0.0/9"));
    assert!(takes("{not-prefixes: [{prefix: 10.0.0.0/8, lengths: {max: 32}}]}", "11.0.0.0/9"));
    assert!(!takes("{not-prefixes: [{prefix: 10.0.0.0/8, lengths: {max: 32}}]}", "10.0.0.0/9"));
}

#[test]
fn every_field_of_a_pattern_counts() {
    let fits = |pattern| takes(pattern, "10.0.0.0/24");
    assert!(fits("{}"));
    for (right, wrong) in [
        ("{communities: ['64512:7', '1:1']}", "{communities: ['64512:8']}"),
        ("{not-communities: ['64512:8']}", "{not-communities: ['64512:7']}"),
        ("{as-path: {starts-with: [65001]}}", "{as-path: {starts-with: [65002]}}"),
        ("{as-path: {origin: 65002}}", "{as-path: {origin: 65001}}"),
        ("{as-path: {contains: 65002}}", "{as-path: {contains: 1}}"),
        ("{as-path: {length: {max: 2}}}", "{as-path: {length: {max: 1}}}"),
        ("{peers: [192.0.2.1]}", "{peers: [192.0.2.2]}"),
        ("{peers: [192.0.2.0/24]}", "{peers: ['fd00::/8']}"),
        ("{peer-type: external}", "{peer-type: internal}"),
        ("{source: [external, static]}", "{source: [internal]}"),
        ("{interfaces: ['eth*']}", "{interfaces: [eth]}"),
        ("{local-preference: {min: 100, max: 100}}", "{local-preference: {min: 101}}"),
        ("{source: [external]}", "{med: {min: 0}}"),
    ] {
        assert!(fits(right), "{right}");
        assert!(!fits(wrong), "{wrong}");
    }
}

#[test]
fn rules_change_the_route_until_one_has_the_last_word() {
    let filter = filter(
        "name: x
rules:
  - set: {local-preference: 200, med: 5, communities: {remove: ['64512:7'], add: ['64512:8', '1:2:3', no-export]}}
  - match: {local-preference: {min: 200}}
    set: {next-hop: self, prepend: {times: 2}}
  - match: {source: [internal]}
    action: reject
  - action: accept
  - action: reject
",
    );
    let mut changed = set();
    assert_eq!(filter.judge(&route("10.0.0.0/24"), 64512, &mut changed), Verdict::Accept);
    assert_eq!((changed.local_preference, changed.med), (Some(200), Some(5)));
    assert_eq!(changed.next_hop, NextHop::V4(Ipv4Addr::new(192, 0, 2, 9)));
    assert_eq!(changed.as_path, AsPath::sequence(&[64512, 64512, 65001, 65002]));
    let communities: Vec<String> = changed.communities.iter().map(ToString::to_string).collect();
    assert_eq!(communities, ["64512:8", "no-export"]);
    assert_eq!(changed.large_communities.len(), 1);
    assert!(filter.is_of_attributes() && !filter.is_transparent());
    assert!(Filter::accept_all().is_transparent());
}

#[test]
fn what_is_wrong_is_named() {
    for (text, words) in [
        ("name: x\nrule: []\n", "rule"),
        ("name: x\nrules: [{match: {prefixs: []}}]\n", "prefixs"),
        ("name: x\nrules: [{match: {prefixes: [{prefix: 10.0.0.0/33}]}}]\n", "10.0.0.0/33"),
        ("name: x\nrules: [{match: {prefixes: [{prefix: 10.1.0.0/8}]}}]\n", "10.0.0.0/8"),
        ("name: x\nrules: [{match: {prefixes: [{prefix: 10.0.0.0/8, lengths: {max: 40}}]}}]\n", "lengths"),
        ("name: x\nrules: [{match: {communities: [export]}}]\n", "no-export"),
        ("name: x\nrules: [{match: {med: {min: 2, max: 1}}}]\n", "min: 2"),
        ("name: x\nrules: [{set: {next-hop: me}}]\n", "next-hop"),
        ("name: x\nrules: [{set: {prepend: {times: 0}}}]\n", "times"),
        ("name: x\nrules: [{action: maybe}]\n", "maybe"),
        ("rules: []\n", "name"),
    ] {
        assert!(refused(text).contains(words), "{text}: {}", refused(text));
    }
}

/// A BGPFilter of Calico, rule by rule, behind what it makes of a node's own block.
const CALICO: &str = "name: calico-export
rules:
  - match: {prefixes: [{prefix: 10.1.2.0/26}], source: [static]}
    action: accept
  - match: {prefixes: [{prefix: 10.1.2.0/26, lengths: {min: 27, max: 32}}]}
    action: reject
  # In, with prefixLength, source RemotePeers, peerType eBGP: accepted with operations.
  - match:
      prefixes: [{prefix: 10.2.0.0/16, lengths: {min: 24, max: 26}}]
      source: [internal, external]
      peer-type: external
    set: {communities: {add: ['64512:7', '64512:1:2']}, prepend: {as: 64999}, local-preference: 2147482623}
    action: accept
  # NotIn and an interface.
  - match: {not-prefixes: [{prefix: 10.0.0.0/8, lengths: {max: 32}}], interfaces: ['cali*']}
    action: reject
  # asPathPrefix and a community.
  - match: {as-path: {starts-with: [65001, 65002]}, communities: ['64512:7']}
    action: accept
";

#[test]
fn what_calico_says_to_bird_can_be_said() {
    let filter = filter(CALICO);
    let judge = |change: &dyn Fn(&mut Route<'static>), prefix: &str| {
        let mut route = route(prefix);
        change(&mut route);
        let mut set = set();
        (filter.judge(&route, 64512, &mut set), set)
    };
    let own = |route: &mut Route<'static>| (route.source, route.interface) = (Source::Static, None);
    let local = |route: &mut Route<'static>| (route.source, route.interface) = (Source::Kernel, Some("cali12"));
    assert_eq!(judge(&own, "10.1.2.0/26").0, Verdict::Accept);
    assert_eq!(judge(&local, "10.1.2.7/32").0, Verdict::Reject);
    let (verdict, set) = judge(&|_| (), "10.2.3.0/24");
    assert_eq!(
        (verdict, set.as_path.first(), set.local_preference),
        (Verdict::Accept, Some(64999), Some(2_147_482_623))
    );
    assert_eq!((set.communities.len(), set.large_communities.len()), (1, 1));
    let inside = |route: &mut Route<'static>| route.peer_type = Some(PeerType::Internal);
    assert_eq!(judge(&inside, "10.2.3.0/24").1.local_preference, None, "of eBGP alone");
    assert_eq!(judge(&local, "192.168.0.1/32").0, Verdict::Reject);
    assert_eq!(judge(&|_| (), "192.168.0.0/24").0, Verdict::Accept);
    assert_eq!(judge(&|route| route.peer_type = None, "10.2.3.0/24").0, Verdict::Accept);
}
