//! Other tables than the main one.

use bgpd::kernel::{Config, METRIC, PROTOCOL};
use linux::netlink::Route;

use crate::world::{World, by, eventually, ip, prefix};

/// A table that a rule leads to: next hops are found by the main one.
#[test]
fn a_table_of_its_own_and_two_speakers_beside_one_another() {
    let mut world = World::new();
    let link = world.links[0];
    let main = world.start(Config::default());
    let other = world.start(Config { table: 1000, ..Config::default() });
    let second = world.start(Config { table: 1000, protocol: 72, ..Config::default() });
    main.want("10.7.0.0/16", by(&["192.0.1.1"]));
    other.want("10.7.0.0/16", by(&["192.0.2.1"]));
    second.want("10.8.0.0/16", by(&["192.0.2.1"]));
    eventually(|| {
        let counts = [(254, PROTOCOL), (1000, PROTOCOL), (1000, 72), (254, 72)].map(|(t, p)| world.count(t, p));
        (counts == [1, 1, 1, 0]).then_some(()).ok_or(format!("{counts:?}"))
    });
    let there = world.to(1000, "10.7.0.0/16").remove(0);
    assert_eq!((there.gateway(), there.metric, there.table), (Some(ip("192.0.2.1")), METRIC, 1000));
    // It is healed there, and gives way there.
    world.rtnl.delete_route(&there).unwrap();
    eventually(|| (world.to(1000, "10.7.0.0/16") == [there.clone()]).then_some(()).ok_or("healed".to_owned()));
    let foreign = Route { protocol: 4, ..Route::via(prefix("10.7.0.0/16"), ip("192.0.1.1"), link) };
    world.rtnl.put_route(&Route { table: 1000, metric: METRIC, ..foreign.clone() }).unwrap();
    other.status("it gives way", |status| status.refused == 1);
    main.status("the main one does not", |status| (status.refused, status.there) == (0, 1));
    // A far next hop is found by the main table.
    let far = Route { protocol: 4, ..Route::via(prefix("203.0.113.0/24"), ip("192.0.1.1"), link) };
    world.rtnl.put_route(&far).unwrap();
    other.want("10.9.0.0/16", by(&["203.0.113.1"]));
    eventually(|| {
        let routes = world.to(1000, "10.9.0.0/16");
        (routes.len() == 1 && routes[0].gateway() == Some(ip("192.0.1.1"))).then_some(()).ok_or(format!("{routes:?}"))
    });
}
