//! What the speaker is told: next hops, routes of others, ranges of links.

use bgpd::kernel::{Command, Config, Event, Learned, LearnedHop};
use linux::netlink::{Route, RouteKind};

use crate::world::{World, by, ip, prefix};

#[test]
fn what_there_is_at_the_start_and_what_changes() {
    let mut world = World::new();
    let ([link, other], dst) = (world.links, prefix("10.7.0.0/16"));
    world.rtnl.put_route(&Route { protocol: 4, ..Route::via(dst, ip("192.0.1.1"), link) }).unwrap();
    let mut running = world.start(Config::default());
    let heard = running.listed();
    let learned = |gateway: Option<&str>, metric: u32, protocol: u8| {
        let hops = vec![LearnedHop { gateway: gateway.map(ip), link: "eth1".to_owned() }];
        Some(Learned { protocol, metric, kind: RouteKind::Unicast, hops })
    };
    let direct = |n: usize| Event::Direct(prefix(&format!("192.0.{n}.0/24")), vec![format!("eth{n}")]);
    let up = |up: bool| Event::Link { name: "eth2".to_owned(), index: other, up };
    for event in [Event::Learned(dst, learned(Some("192.0.1.1"), 0, 4)), direct(1), direct(2), up(true)] {
        assert!(heard.contains(&event), "{event:?} is not among {heard:?}");
    }
    let others = |event: &&Event| matches!(event, Event::Learned(prefix, _) if *prefix != dst);
    assert_eq!(heard.iter().find(others), None, "the kernel's own are not told as learned");

    // A pod's route, as its network makes it.
    let pod = Route { protocol: 3, ..Route::link(prefix("10.244.0.9/32"), link) };
    world.rtnl.put_route(&pod).unwrap();
    running.hears(&Event::Learned(pod.dst, learned(None, 0, 3)));
    // Ours are not told.
    running.want("10.9.0.0/16", by(&["192.0.1.1"]));
    world.leads("10.9.0.0/16", &["192.0.1.1"]);
    world.rtnl.delete_route(&pod).unwrap();
    running.hears(&Event::Learned(pod.dst, None));
    world.rtnl.put_address(link, prefix("198.51.100.1/32")).unwrap();
    running.hears(&Event::Direct(prefix("198.51.100.1/32"), vec!["eth1".to_owned()]));
    world.carrier(1, false);
    running.hears(&Event::Direct(prefix("192.0.2.0/24"), vec![]));
    world.carrier(1, true);
    running.hears(&direct(2));
    world.rtnl.delete_link("eth2").unwrap();
    running.hears(&up(false));
}

#[test]
fn the_metric_of_the_way_to_a_next_hop() {
    let mut world = World::new();
    let link = world.links[0];
    let mut running = world.start(Config::default());
    running.listed();
    for (near, far, router) in [("192.0.2.9", "203.0.113.9", "192.0.1.1"), ("fd00:2::9", "2001:db8::9", "fd00:1::1")] {
        running.say(Command::Track(ip(near)));
        running.hears(&Event::NextHop(ip(near), Some(0)));
        running.say(Command::Track(ip(far)));
        running.hears(&Event::NextHop(ip(far), None));
        let range = prefix(if far.contains(':') { "2001:db8::/32" } else { "203.0.113.0/24" });
        let route = |metric: u32| Route { protocol: 4, metric, ..Route::via(range, ip(router), link) };
        let (worse, better) = (route(500), route(70));
        world.rtnl.put_route(&worse).unwrap();
        running.hears(&Event::NextHop(ip(far), Some(500)));
        world.rtnl.put_route(&better).unwrap();
        running.hears(&Event::NextHop(ip(far), Some(70)));
        world.rtnl.delete_route(&better).unwrap();
        running.hears(&Event::NextHop(ip(far), Some(500)));
        running.say(Command::Forget(ip(far)));
    }
    world.carrier(1, false);
    running.hears_all(&[Event::NextHop(ip("192.0.2.9"), None), Event::NextHop(ip("fd00:2::9"), None)]);
}

/// Whoever doesn't listen for a while hears the last state of each thing, and holds nobody up.
#[test]
fn a_slow_listener_hears_the_last() {
    let mut world = World::new();
    let link = world.links[0];
    let mut running = world.start(Config::default());
    running.listed();
    for n in 0..200_u32 {
        let range = prefix(&format!("10.{}.0.0/16", n % 40));
        let metric = if n < 160 { 7 } else { 8 };
        let route = |metric: u32| Route { protocol: 4, metric, ..Route::via(range, ip("192.0.1.1"), link) };
        if metric == 8 {
            world.rtnl.delete_route(&route(7)).unwrap();
        }
        world.rtnl.put_route(&route(metric)).unwrap();
    }
    // Routes are put meanwhile.
    running.want("10.99.0.0/16", by(&["192.0.1.1"]));
    world.leads("10.99.0.0/16", &["192.0.1.1"]);
    // In whatever order: each may have been told before, and has its place in the queue from then.
    let mut heard = std::collections::BTreeMap::new();
    for n in 0..40 {
        let hops = vec![LearnedHop { gateway: Some(ip("192.0.1.1")), link: "eth1".to_owned() }];
        let learned = Learned { protocol: 4, metric: 8, kind: RouteKind::Unicast, hops };
        let (range, expected) = (prefix(&format!("10.{n}.0.0/16")), Some(learned));
        crate::world::eventually(|| {
            while let Ok(event) = running.events.try_recv() {
                if let Event::Learned(range, learned) = event {
                    heard.insert(range, learned);
                }
            }
            let last = heard.get(&range);
            (last == Some(&expected)).then_some(()).ok_or_else(|| format!("{range}: {last:?}"))
        });
    }
}
