//! By which route a next hop is reached, and what of others' routes is told.

use linux::netlink::{LinkKind, NextHop};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn link(index: u32) -> Link {
    Link { index, name: format!("eth{index}"), up: true, carrier: true, ..Link::default() }
}

fn address(index: u32, text: &str) -> LinkAddress {
    let prefix = prefix(text);
    LinkAddress { index, prefix, global: true, secondary: false, settled: true, with_route: true, protocol: 0 }
}

fn direct(index: u32, dst: &str) -> Route {
    Route { protocol: 2, ..Route::link(prefix(dst), index) }
}

/// Two links of both families; a default by the first, and a range by both.
fn host() -> Ways {
    let mut ways = Ways::new(None, false);
    let addresses = ["192.0.1.5/24", "192.0.2.5/24", "fd00:1::5/64", "fd00:2::5/64"];
    let addresses = addresses.iter().enumerate().map(|(n, text)| address(n as u32 % 2 + 1, text)).collect();
    ways.list(vec![link(1), link(2)], addresses);
    let hops = vec![NextHop::via(ip("192.0.1.1"), 1), NextHop { weight: 3, ..NextHop::via(ip("192.0.2.1"), 2) }];
    let routes = vec![
        direct(1, "192.0.1.0/24"),
        direct(2, "192.0.2.0/24"),
        direct(1, "fd00:1::/64"),
        direct(2, "fd00:2::/64"),
        Route { protocol: 4, metric: 100, ..Route::via(prefix("0.0.0.0/0"), ip("192.0.1.1"), 1) },
        Route { protocol: 4, metric: 20, ..Route::multipath(prefix("10.0.0.0/8"), hops) },
        Route { protocol: 4, metric: 7, ..Route::reject(prefix("10.1.0.0/16"), RouteKind::Blackhole) },
    ];
    ways.list_routes(false, routes);
    ways
}

/// Metric, and of each way its gateway, link and weight.
type Told = Option<(u32, Vec<(String, u32, u16)>)>;

fn reached(ways: &Ways, to: &str) -> Told {
    let reached = ways.reach(ip(to))?;
    let way = |way: &Way| (way.gateway.map(|g| g.to_string()).unwrap_or_default(), way.link, way.weight);
    Some((reached.metric, reached.ways.iter().map(way).collect()))
}

fn by(metric: u32, ways: &[(&str, u32, u16)]) -> Told {
    Some((metric, ways.iter().map(|(gateway, link, weight)| ((*gateway).to_owned(), *link, *weight)).collect()))
}

#[test]
fn a_next_hop_is_reached_by_the_longest_prefix() {
    let ways = host();
    assert_eq!(reached(&ways, "192.0.2.9"), by(0, &[("192.0.2.9", 2, 1)]), "on a link");
    assert_eq!(reached(&ways, "fd00:1::9"), by(0, &[("fd00:1::9", 1, 1)]), "on a link");
    assert_eq!(reached(&ways, "203.0.113.1"), by(100, &[("192.0.1.1", 1, 1)]), "by the default route");
    assert_eq!(reached(&ways, "10.9.9.9"), by(20, &[("192.0.1.1", 1, 1), ("192.0.2.1", 2, 3)]), "by two routers");
    assert_eq!(reached(&ways, "10.1.0.1"), None, "a blackhole");
    assert_eq!(reached(&ways, "fd00:9::1"), None, "no route");
    assert_eq!(reached(&ways, "192.0.1.5"), None, "an own address");
}

#[test]
fn a_next_hop_is_lost_with_its_link_and_comes_back_with_it() {
    let mut ways = host();
    assert!(ways.set_link(Link { carrier: false, ..link(2) }));
    assert_eq!(reached(&ways, "192.0.2.9"), None, "nobody is there, and the default leads elsewhere");
    assert_eq!(reached(&ways, "10.9.9.9"), by(20, &[("192.0.1.1", 1, 1)]));
    assert!(ways.set_link(link(2)));
    assert!(!ways.set_link(link(2)), "nothing new");
    assert_eq!(reached(&ways, "192.0.2.9"), by(0, &[("192.0.2.9", 2, 1)]));
    // What goes down takes its routes along.
    ways.set_link(Link { up: false, carrier: false, ..link(1) });
    assert_eq!(reached(&ways, "203.0.113.1"), None);
    ways.set_link(link(1));
    assert_eq!(reached(&ways, "203.0.113.1"), None, "the kernel has it no more");
    ways.route(false, &Route { protocol: 4, ..Route::via(prefix("0.0.0.0/0"), ip("192.0.2.1"), 2) }, false);
    assert_eq!(reached(&ways, "203.0.113.1"), by(1, &[("192.0.2.1", 2, 1)]));
    ways.remove_link(2);
    assert_eq!(reached(&ways, "203.0.113.1"), None);
}

#[test]
fn a_wish_takes_what_can_be_reached_of_its_next_hops() {
    let mut ways = host();
    let wish = Wish::by(32, ["192.0.1.7", "192.0.2.7", "fd00:9::1"].map(ip));
    assert_eq!(ways.shape(&wish).unwrap().hops().len(), 2);
    ways.set_link(Link { carrier: false, ..link(2) });
    assert_eq!(ways.shape(&wish).unwrap().hops().len(), 1);
    ways.set_link(Link { carrier: false, ..link(1) });
    assert_eq!(ways.shape(&wish), None);
    let hop = Hop { link: Some("eth2".to_owned()), onlink: true, weight: 2, ..Hop::new(ip("fe80::1")) };
    let by_link = Wish { metric: 32, target: Target::Hops(vec![hop]) };
    assert_eq!(ways.shape(&by_link), None, "its link is down");
    ways.set_link(link(2));
    let way = Way { gateway: Some(ip("fe80::1")), link: 2, onlink: true, weight: 1 };
    assert_eq!(ways.shape(&by_link).unwrap().hops(), [way]);
    assert_eq!(ways.shape(&Wish { metric: 1, target: Target::Blackhole }), Some(Shape::reject(RouteKind::Blackhole)));
}

#[test]
fn shapes_are_found_again_when_ways_change() {
    let (mut ways, mut shapes) = (host(), Shapes::default());
    let [near, far] = ["192.0.2.7", "10.9.9.9"].map(|hop| Arc::new(Wish::by(32, [ip(hop)])));
    shapes.find(&near, &ways);
    shapes.find(&far, &ways);
    assert!(shapes.find_again(&ways).is_empty());
    let before = shapes.get(&far);
    ways.set_link(Link { carrier: false, ..link(1) });
    assert_eq!(shapes.find_again(&ways), HashSet::from([far.clone()]));
    assert_ne!(shapes.get(&far), before);
    assert!(shapes.get(&near).is_some());
}

#[test]
fn the_best_route_of_another_protocol_is_told_and_not_the_kernels_own() {
    let mut ways = host();
    assert_eq!(ways.learned(&prefix("192.0.1.0/24")), None);
    let hop = |gateway: &str, link: &str| LearnedHop { gateway: Some(ip(gateway)), link: link.to_owned() };
    let hops = vec![hop("192.0.1.1", "eth1"), hop("192.0.2.1", "eth2")];
    let ten = prefix("10.0.0.0/8");
    assert_eq!(ways.learned(&ten), Some(Learned { protocol: 4, metric: 20, kind: RouteKind::Unicast, hops }));
    let better = Route { protocol: 3, metric: 5, ..Route::link(ten, 1) };
    ways.route(false, &better, false);
    assert_eq!(ways.learned(&ten).map(|learned| (learned.protocol, learned.metric)), Some((3, 5)));
    assert!(!ways.is_taken(&ten, 6) && ways.is_taken(&ten, 5) && ways.is_taken(&ten, 20));
    ways.route(false, &better, true);
    assert_eq!(ways.learned(&ten).map(|learned| learned.protocol), Some(4));
    assert!(!ways.is_taken(&ten, 5));
}

/// One of several next hops of IPv6 goes by itself: what is left is not in that message.
#[test]
fn what_is_left_of_several_next_hops_of_ipv6_is_asked_for() {
    let mut ways = host();
    let dst = prefix("fd07::/32");
    let hops = vec![NextHop::via(ip("fd00:1::1"), 1), NextHop::via(ip("fd00:2::1"), 2)];
    let both = Route { protocol: 4, ..Route::multipath(dst, hops.clone()) };
    let one = Route { next_hops: vec![hops[0].clone()], ..both.clone() };
    assert!(!ways.route(false, &both, false));
    assert!(ways.route(false, &one, true));
    assert!(!ways.route(false, &both, false));
    assert!(!ways.route(false, &both, true));
    assert_eq!(ways.learned(&dst), None);
}

#[test]
fn ranges_of_links_that_are_up() {
    let mut ways = host();
    ways.set_address(address(1, "127.0.0.1/8"));
    ways.set_address(address(1, "fe80::1/64"));
    ways.set_address(address(2, "192.0.1.6/24"));
    ways.set_address(LinkAddress { settled: false, ..address(2, "fd00:3::1/64") });
    let named = |ways: &Ways| -> Vec<String> {
        ways.direct()
            .iter()
            .map(|(p, links)| format!("{p} {}", Vec::from_iter(links.iter().cloned()).join(",")))
            .collect()
    };
    assert_eq!(named(&ways), ["192.0.1.0/24 eth1,eth2", "192.0.2.0/24 eth2", "fd00:1::/64 eth1", "fd00:2::/64 eth2"]);
    ways.set_link(Link { carrier: false, ..link(2) });
    assert_eq!(named(&ways), ["192.0.1.0/24 eth1", "fd00:1::/64 eth1"]);
}

/// Addresses and ranges of one VRF say nothing in another, though they may be the same.
#[test]
fn each_vrf_has_its_own_links() {
    let vrf = |index, name: &str| Link { kind: Some(LinkKind::Vrf(index)), name: name.to_owned(), ..link(index) };
    let within = |index, master| Link { master: Some(master), ..link(index) };
    let links = vec![link(1), within(2, 10), within(3, 11), vrf(10, "red"), vrf(11, "blue")];
    let addresses = ["192.0.1.5/24", "192.0.2.5/24", "192.0.2.9/24"];
    let addresses: Vec<LinkAddress> = (1..).zip(addresses).map(|(index, text)| address(index, text)).collect();
    let of = |name: Option<&str>| {
        let mut ways = Ways::new(name.map(str::to_owned), false);
        ways.list(links.clone(), addresses.clone());
        let master = name.map_or(1, |name| if name == "red" { 2 } else { 3 });
        ways.list_routes(false, vec![direct(master, "192.0.2.0/24")]);
        ways
    };
    let ranges = |ways: &Ways| ways.direct().into_values().flatten().collect::<Vec<_>>().join(" ");
    let [none, red, blue] = [None, Some("red"), Some("blue")].map(of);
    assert_eq!([&none, &red, &blue].map(ranges), ["eth1", "eth2", "eth3"]);
    assert_eq!((reached(&red, "192.0.2.5"), reached(&blue, "192.0.2.9")), (None, None), "own addresses");
    assert_eq!(reached(&red, "192.0.2.9"), by(0, &[("192.0.2.9", 2, 1)]), "next door, and the other's own");
    assert_eq!(reached(&blue, "192.0.2.5"), by(0, &[("192.0.2.5", 3, 1)]));
    let mut moved = red;
    assert!(moved.set_link(within(3, 10)), "another link has come in");
    assert_eq!(reached(&moved, "192.0.2.9"), None);
}
