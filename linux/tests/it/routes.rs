//! Routes of every shape, both families: the kernel reads back what was put, and a list is the whole of what is there.

use linux::netlink::{Attribute, Mac, NextHop, PROTOCOL, Route, RouteChange, RouteKind, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A host with two links, each in a network of both families, and their indexes.
fn host() -> (NetNs, Rtnl, u32, u32) {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    let mut index = |n: u8| {
        rtnl.add_bridge(&format!("lan{n}"), Mac([2, 0, 0, 0, 0, n]), 1500).unwrap();
        let lan = rtnl.link(&format!("lan{n}")).unwrap().unwrap().index;
        rtnl.put_address(lan, format!("192.0.{n}.5/24").parse().unwrap()).unwrap();
        rtnl.put_address(lan, format!("fd00:{n}::5/64").parse().unwrap()).unwrap();
        lan
    };
    let (one, two) = (index(1), index(2));
    // The kernel's own way to an IPv6 address comes a moment after it, by a task of its own.
    let began = Instant::now();
    while !["fd00:1::5/128", "fd00:2::5/128"].map(prefix).iter().all(|dst| is_local(&rtnl.routes().unwrap(), *dst)) {
        assert!(began.elapsed() < PATIENCE, "no local routes: {:?}", rtnl.routes());
        std::thread::sleep(Duration::from_millis(10));
    }
    (host, rtnl, one, two)
}

fn is_local(routes: &[Route], dst: Prefix) -> bool {
    routes.iter().any(|r| r.kind == RouteKind::Local && r.dst == dst && r.table == 255)
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn to(rtnl: &mut Rtnl, dst: &str) -> Vec<Route> {
    let dst = prefix(dst);
    rtnl.routes().unwrap().into_iter().filter(|r| r.dst == dst && r.table != 255).collect()
}

#[test]
fn what_is_put_is_read_back_and_deleted_alone() {
    let (_host, mut rtnl, one, two) = host();
    let mtu = Attribute { kind: 8, value: [&[8u8, 0, 2, 0][..], &1400u32.to_ne_bytes()].concat() };
    for (dst, a, b) in [("10.7.0.0/16", "192.0.1.1", "192.0.2.1"), ("fd07::/48", "fd00:1::1", "fd00:2::1")] {
        let (range, a, b) = (prefix(dst), ip(a), ip(b));
        let hops = vec![NextHop { weight: 3, ..NextHop::via(a, one) }, NextHop::via(b, two)];
        let shapes = [
            Route::link(range, one),
            Route::via(range, a, one),
            Route { metric: 70, table: 1000, other: vec![mtu.clone()], ..Route::via(range, b, two) },
            Route {
                protocol: 4,
                source: Some(if range.is_ipv6() { ip("fd00:2::5") } else { ip("192.0.2.5") }),
                ..Route::via(range, a, one)
            },
            Route::multipath(range, hops.clone()),
            Route { metric: 9, ..Route::multipath(range, hops.into_iter().rev().collect()) },
            Route::reject(range, RouteKind::Blackhole),
            Route::reject(range, RouteKind::Unreachable),
            Route::reject(range, RouteKind::Prohibit),
            Route::reject(range, RouteKind::Throw),
        ];
        for shape in &shapes {
            rtnl.put_route(shape).unwrap();
            rtnl.put_route(shape).unwrap();
            let found = to(&mut rtnl, dst);
            assert_eq!(found.len(), 1, "{shape:?}");
            assert_eq!(sorted(&found[0]), sorted(shape));
            rtnl.delete_route(&found[0]).unwrap();
            rtnl.delete_route(shape).unwrap();
            assert_eq!(to(&mut rtnl, dst), []);
        }
    }
}

/// The kernel keeps IPv6's next hops in an order of its own.
fn sorted(route: &Route) -> Route {
    let mut route = route.clone();
    route.next_hops.sort_by_key(|hop| hop.index);
    route
}

#[test]
fn an_ipv4_route_may_lead_through_a_router_of_ipv6() {
    let (_host, mut rtnl, one, _) = host();
    let route = Route::via(prefix("10.7.0.0/16"), ip("fd00:1::1"), one);
    rtnl.put_route(&route).unwrap();
    assert_eq!(to(&mut rtnl, "10.7.0.0/16"), [route]);
}

/// As flannel has it: the gateway is an address of the other end, which is in no network of the link.
#[test]
fn a_gateway_may_be_on_the_link_though_no_address_says_so() {
    let (_host, mut rtnl, one, two) = host();
    for (dst, gateway) in [("10.7.1.0/24", "10.7.1.0"), ("fd07:1::/64", "fd07:1::1")] {
        let hop = NextHop { onlink: true, ..NextHop::via(ip(gateway), one) };
        let single = Route::multipath(prefix(dst), vec![hop.clone()]);
        let both = Route {
            metric: 7,
            ..Route::multipath(prefix(dst), vec![hop.clone(), NextHop { index: Some(two), ..hop }])
        };
        for route in [single, both] {
            rtnl.put_route(&route).unwrap();
            assert_eq!(to(&mut rtnl, dst).iter().map(sorted).collect::<Vec<_>>(), [sorted(&route)]);
            rtnl.delete_route(&route).unwrap();
        }
    }
}

/// Routes of versions before this one said that an administrator had made them.
#[test]
fn ours_are_told_from_an_administrators_and_take_the_place_of_an_earlier_versions() {
    let (_host, mut rtnl, one, _) = host();
    for (dst, elsewhere) in [("10.7.0.0/16", "10.8.0.0/16"), ("fd07::/48", "fd08::/48")] {
        let of_before = Route { protocol: 4, ..Route::link(prefix(dst), one) };
        let of_another = Route { protocol: 4, metric: 9, ..of_before.clone() };
        let far = Route { dst: prefix(elsewhere), ..of_before.clone() };
        for route in [&of_before, &of_another, &far] {
            rtnl.put_route(route).unwrap();
        }
        rtnl.put_route(&Route::link(prefix(dst), one)).unwrap();
        let protocols: Vec<_> = to(&mut rtnl, dst).iter().map(|r| (r.metric, r.protocol)).collect();
        let metric = of_before.metric;
        let mut expected = [(metric, PROTOCOL), (9, 4)];
        expected.sort_unstable();
        assert_eq!(
            {
                let mut p = protocols;
                p.sort_unstable();
                p
            },
            expected
        );
        assert!(to(&mut rtnl, elsewhere).iter().all(|r| !r.is_ours()));
        // What isn't ours is not deleted by one of ours that looks the same.
        rtnl.delete_route(&Route { dst: prefix(elsewhere), ..Route::link(prefix(dst), one) }).unwrap();
        assert_eq!(to(&mut rtnl, elsewhere), [far]);
    }
}

#[test]
fn the_kernels_own_are_in_the_list_and_the_way_out_is_found() {
    let (_host, mut rtnl, one, two) = host();
    let all = rtnl.routes().unwrap();
    assert!(is_local(&all, prefix("192.0.1.5/32")) && is_local(&all, prefix("fd00:1::5/128")), "{all:?}");
    assert!(all.iter().any(|r| r.kind == RouteKind::Broadcast));
    assert_eq!(rtnl.default_route().unwrap(), None);
    rtnl.put_route(&Route::reject(prefix("0.0.0.0/0"), RouteKind::Unreachable)).unwrap();
    assert_eq!(rtnl.default_route().unwrap(), None, "it leads nowhere");
    let hops = vec![NextHop::via(ip("192.0.1.1"), one), NextHop::via(ip("192.0.2.1"), two)];
    rtnl.put_route(&Route::multipath(prefix("0.0.0.0/0"), hops)).unwrap();
    assert_eq!(rtnl.default_route().unwrap().and_then(|r| r.index()), Some(one));
    for (kind, dst) in [(RouteKind::Blackhole, "10.1.0.0/16"), (RouteKind::Prohibit, "10.2.0.0/16")] {
        rtnl.put_route(&Route::reject(prefix(dst), kind)).unwrap();
    }
    assert_eq!(rtnl.route_to(ip("10.1.0.1")).unwrap().or(rtnl.route_to(ip("10.2.0.1")).unwrap()), None);
    let way = rtnl.route_to(ip("198.51.100.1")).unwrap().unwrap();
    assert!(way.source.is_some() && [Some(one), Some(two)].contains(&way.index()), "{way:?}");
}

/// What another made is not overwritten by an addition, and what can't be done doesn't stop the rest.
#[test]
fn many_changes_in_one_call_and_each_refusal_by_its_number() {
    let (_host, mut rtnl, one, two) = host();
    for (range, a, b) in [("10.7", "192.0.1.1", "192.0.2.1"), ("fd07", "fd00:1::1", "fd00:2::1")] {
        let v6 = range == "fd07";
        let nth = |n: u32| prefix(&if v6 { format!("fd07:{n:x}::/48") } else { format!("10.7.{n}.0/24") });
        let (a, b) = (ip(a), ip(b));
        let foreign = Route { protocol: 4, metric: 50, ..Route::via(nth(3), a, one) };
        rtnl.put_route(&foreign).unwrap();
        let route = |n: u32| Route { metric: 50, protocol: 99, table: 254, ..Route::via(nth(n), a, one) };
        let nowhere = if v6 { "fd99::1" } else { "203.0.113.1" };
        let lost = Route { next_hops: vec![NextHop::via(ip(nowhere), one)], ..route(4) };
        let changes: Vec<RouteChange> =
            [route(1), route(2), route(3), lost, route(5)].into_iter().map(RouteChange::Add).collect();
        let refused = rtnl.change_routes(&changes).unwrap();
        let numbers: Vec<_> = refused.iter().map(|(at, error)| (*at, error.is_exists())).collect();
        assert_eq!(numbers, [(2, true), (3, false)], "{refused:?}");
        assert!(refused[1].1.to_string().starts_with(&format!("adding route to {}: ", nth(4))), "{refused:?}");
        assert_eq!(to(&mut rtnl, &nth(3).to_string()), std::slice::from_ref(&foreign));
        assert_eq!(to(&mut rtnl, &nth(5).to_string()), [route(5)]);

        let hops = vec![NextHop::via(a, one), NextHop::via(b, two)];
        let both = Route { metric: 50, protocol: 99, ..Route::multipath(nth(1), hops) };
        let hole = Route { metric: 50, protocol: 99, ..Route::reject(nth(2), RouteKind::Blackhole) };
        let gone = |n: u32| RouteChange::Delete { dst: nth(n), table: 254, metric: 50, protocol: 99 };
        let changes = [RouteChange::Put(both.clone()), RouteChange::Put(hole.clone()), gone(3), gone(4), gone(5)];
        assert_eq!(rtnl.change_routes(&changes).unwrap().len(), 0);
        assert_eq!(to(&mut rtnl, &nth(1).to_string()).iter().map(sorted).collect::<Vec<_>>(), [both]);
        assert_eq!(to(&mut rtnl, &nth(2).to_string()), [hole]);
        assert_eq!(to(&mut rtnl, &nth(3).to_string()), [foreign]);
        assert_eq!(to(&mut rtnl, &nth(5).to_string()), []);
        assert_eq!(rtnl.change_routes(&[gone(1), gone(2)]).unwrap().len(), 0);
        assert_eq!((to(&mut rtnl, &nth(1).to_string()), to(&mut rtnl, &nth(2).to_string())), (vec![], vec![]));
    }
}

#[test]
fn a_table_is_listed_alone() {
    let (_host, mut rtnl, one, _) = host();
    let mut expected = Vec::new();
    for dst in ["10.7.0.0/16", "fd07::/48"] {
        let route = Route { table: 1000, ..Route::link(prefix(dst), one) };
        rtnl.put_route(&route).unwrap();
        rtnl.put_route(&Route { table: 1001, ..route.clone() }).unwrap();
        expected.push(route);
    }
    let mut seen = 0;
    let listed = rtnl.routes_of(Some(1000), |route| {
        seen += 1;
        Some(route)
    });
    assert_eq!((listed.unwrap(), seen), (expected, 2));
    assert_eq!(rtnl.routes_of(Some(4711), Some).unwrap(), []);
    assert!(rtnl.routes_of(None, Some).unwrap().len() > 4);
}
