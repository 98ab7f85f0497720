//! What was removed or changed by hand is put back; what is another's stays as it is.

use bgpd::kernel::{Config, METRIC, PROTOCOL};
use linux::netlink::{Route, RouteKind};

use crate::world::{World, by, eventually, ip, prefix};

const BOTH: [(&str, &str, &str); 2] =
    [("10.7.0.0/16", "192.0.1.1", "192.0.2.1"), ("fd07::/48", "fd00:1::1", "fd00:2::1")];

#[test]
fn a_route_that_was_removed_or_changed_by_hand_is_put_back() {
    let mut world = World::new();
    let running = world.start(Config::default());
    for (dst, a, b) in BOTH {
        running.want(dst, by(&[a, b]));
        world.leads(dst, &[a, b]);
        let route = world.to(254, dst).remove(0);
        for _ in 0..3 {
            world.rtnl.delete_route(&route).unwrap();
            world.leads(dst, &[a, b]);
        }
        // One next hop of two, another kind, another metric.
        let one = Route { next_hops: vec![route.next_hops[0].clone()], ..route.clone() };
        let hole = Route { metric: METRIC, protocol: PROTOCOL, ..Route::reject(prefix(dst), RouteKind::Blackhole) };
        let stray = Route { metric: 7, ..route.clone() };
        for changed in [one.clone(), hole, stray] {
            world.rtnl.put_route(&changed).unwrap();
            world.leads(dst, &[a, b]);
        }
        if prefix(dst).is_ipv6() {
            world.rtnl.delete_route(&one).unwrap();
            world.leads(dst, &[a, b]);
        }
    }
    running.status("they are there", |status| (status.wanted, status.there) == (2, 2));
}

/// Without any news: by the next list.
#[test]
fn what_nobody_told_is_found_by_the_next_list() {
    let mut world = World::new();
    let scan = std::time::Duration::from_millis(300);
    let running = world.start(Config { scan, ..Config::default() });
    let (dst, a, _) = BOTH[0];
    running.want(dst, by(&[a]));
    world.leads(dst, &[a]);
    // The kernel takes IPv4 routes away with their link without a word, and they don't come back with it.
    let link = world.links[0];
    world.rtnl.set_up(link, false).unwrap();
    world.rtnl.set_up(link, true).unwrap();
    world.leads(dst, &[a]);
}

#[test]
fn routes_of_other_protocols_are_never_touched() {
    let mut world = World::new();
    let link = world.links[0];
    let running = world.start(Config::default());
    for (dst, a, b) in BOTH {
        // One in the place that ours shall have, and one beside.
        let foreign = |metric: u32| Route { protocol: 4, metric, ..Route::via(prefix(dst), ip(a), link) };
        let (there, beside) = (foreign(METRIC), foreign(METRIC + 1));
        world.rtnl.put_route(&there).unwrap();
        world.rtnl.put_route(&beside).unwrap();
        let sorted = |mut routes: Vec<Route>| {
            routes.sort_by_key(|route| route.metric);
            routes
        };
        running.want(dst, by(&[b]));
        running.status("it waits", |status| status.refused == 1);
        assert_eq!(sorted(world.to(254, dst)), [there.clone(), beside.clone()]);
        running.want(dst, None);
        running.status("it waits no more", |status| status.refused == 0);
        running.want(dst, by(&[b]));
        running.status("it waits again", |status| status.refused == 1);
        assert_eq!(sorted(world.to(254, dst)), [there.clone(), beside.clone()]);
        // Its place is free: ours takes it.
        world.rtnl.delete_route(&there).unwrap();
        eventually(|| {
            let routes = sorted(world.to(254, dst));
            let shown: Vec<_> = routes.iter().map(|route| (route.protocol, route.metric, route.gateway())).collect();
            let expected = [(PROTOCOL, METRIC, Some(ip(b))), (4, METRIC + 1, Some(ip(a)))];
            (shown == expected).then_some(()).ok_or(format!("{shown:?}"))
        });
        // An administrator takes the place: it is his.
        world.rtnl.put_route(&there).unwrap();
        running.status("it gives way", |status| status.refused == 1);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(world.to(254, dst).contains(&there), "{:?}", world.to(254, dst));
        running.want(dst, None);
        eventually(|| {
            let routes = sorted(world.to(254, dst));
            (routes == [there.clone(), beside.clone()]).then_some(()).ok_or(format!("{routes:?}"))
        });
    }
}

#[test]
fn routes_follow_links_that_come_and_go() {
    let mut world = World::new();
    let running = world.start(Config::default());
    for (dst, a, b) in BOTH {
        running.want(dst, by(&[a, b]));
        world.leads(dst, &[a, b]);
    }
    world.carrier(0, false);
    BOTH.iter().for_each(|(dst, _, b)| world.leads(dst, &[b]));
    world.carrier(0, true);
    BOTH.iter().for_each(|(dst, a, b)| world.leads(dst, &[a, b]));
    let link = world.links[1];
    world.rtnl.set_up(link, false).unwrap();
    BOTH.iter().for_each(|(dst, a, _)| world.leads(dst, &[a]));
    // Its IPv6 address went with it.
    world.rtnl.set_up(link, true).unwrap();
    world.rtnl.put_address(link, prefix("fd00:2::5/64")).unwrap();
    BOTH.iter().for_each(|(dst, a, b)| world.leads(dst, &[a, b]));
    world.rtnl.delete_link("eth2").unwrap();
    BOTH.iter().for_each(|(dst, a, _)| world.leads(dst, &[a]));
}
