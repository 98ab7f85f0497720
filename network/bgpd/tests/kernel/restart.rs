//! A process that was killed and started again finds its routes, and moves no packet.

use std::time::Duration;

use bgpd::kernel::{Command, Config, Event, Learned, LearnedHop, METRIC, PROTOCOL};
use linux::netlink::{Event as Change, Item, Monitor, Route, RouteKind, Topic};
use meta::Prefix;

use crate::world::{World, by, ip, many, prefix};

/// 100,000 routes (by `--full`) are found, kept, and not written again; what has changed meanwhile is, and what is gone goes in the end.
#[test]
fn routes_of_an_earlier_process_are_kept_until_all_is_known() {
    let number = many();
    let mut world = World::new();
    let first = world.start(Config::default());
    let routes: Vec<Prefix> = prefix("10.0.0.0/8").subnets(27).take(number).collect();
    let (one, other) = (by(&["192.0.1.1"]), by(&["192.0.2.1"]));
    first.say(Command::Want(routes.iter().map(|prefix| (*prefix, one.clone())).collect()));
    first.say(Command::Want(vec![(prefix("fd07::/48"), by(&["fd00:1::1"]))]));
    first.status("all are there", |status| status.there == number + 1);
    first.killed();
    assert_eq!(world.count(254, PROTOCOL), number + 1);

    let monitor = Monitor::open_in(&world.ns, &[Topic::Routes]).unwrap();
    let mut second = world.start(Config::default());
    second.listed();
    assert_eq!(second.kernel.status.borrow().kept, number + 1, "known when all is listed");
    second.status("they are kept", |status| (status.kept, status.there, status.wanted) == (number + 1, number + 1, 0));
    // All but the last two are told again, one of them with another next hop.
    let again = routes[..number - 2].iter().enumerate();
    let again = again.map(|(n, prefix)| (*prefix, if n == 0 { other.clone() } else { one.clone() }));
    second.say(Command::Want(again.collect()));
    second.status("those that are wanted are wanted", |status| (status.wanted, status.kept) == (number - 2, 3));
    world.leads(&routes[0].to_string(), &["192.0.2.1"]);
    assert_eq!(world.count(254, PROTOCOL), number + 1);
    second.say(Command::Loaded);
    second.status("the rest goes", |status| (status.kept, status.there) == (0, number - 2));
    assert_eq!(world.count(254, PROTOCOL), number - 2);
    let mut changed = Vec::new();
    monitor
        .drain(|change| match change {
            Change::Set(Item::Route(route)) | Change::Gone(Item::Route(route)) => changed.push(route.dst),
            other => panic!("{other:?}"),
        })
        .unwrap();
    let mut expected = vec![routes[0], routes[number - 2], routes[number - 1], prefix("fd07::/48")];
    changed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(changed, expected, "only what changed was written");
    second.say(Command::Clear);
    second.status("all goes", |status| status.there == 0);
    assert_eq!(world.count(254, PROTOCOL), 0);
}

#[test]
fn routes_are_kept_no_longer_than_that() {
    let mut world = World::new();
    let link = world.links[0];
    let config = Config { keep: Duration::from_secs(6), ..Config::default() };
    let ours = |dst: &str| Route { protocol: PROTOCOL, metric: 32, ..Route::via(prefix(dst), ip("192.0.1.1"), link) };
    world.rtnl.put_route(&ours("10.7.0.0/16")).unwrap();
    world.rtnl.put_route(&ours("10.8.0.0/16")).unwrap();
    let running = world.start(config);
    running.status("both are kept", |status| status.kept == 2);
    // What is said to be gone goes at once.
    running.want("10.8.0.0/16", None);
    world.leads("10.8.0.0/16", &[]);
    assert_eq!(world.to(254, "10.7.0.0/16").len(), 1);
    world.leads("10.7.0.0/16", &[]);
}

/// A next hop may not be known yet when it is wanted again.
#[test]
fn a_route_is_kept_while_its_next_hop_is_not_known() {
    let mut world = World::new();
    let link = world.links[0];
    let ours = Route { protocol: PROTOCOL, metric: 32, ..Route::via(prefix("10.7.0.0/16"), ip("192.0.1.1"), link) };
    world.rtnl.put_route(&ours).unwrap();
    let running = world.start(Config::default());
    running.want("10.7.0.0/16", by(&["203.0.113.1"]));
    running.status("it is wanted", |status| (status.wanted, status.kept) == (1, 1));
    world.leads("10.7.0.0/16", &["192.0.1.1"]);
    running.say(Command::Loaded);
    world.leads("10.7.0.0/16", &[]);
}

/// One that only learns has no routes: those with its number are of another speaker on this host.
#[test]
fn who_writes_nothing_leaves_alone_what_a_speaker_beside_has_written() {
    let mut world = World::new();
    let speaker = world.start(Config::default());
    speaker.want("10.7.0.0/16", by(&["192.0.1.1"]));
    world.leads("10.7.0.0/16", &["192.0.1.1"]);
    speaker.killed();
    let mut running = world.start(Config { write: false, ..Config::default() });
    let learned = |metric: u32, protocol: u8| {
        let hops = vec![LearnedHop { gateway: Some(ip("192.0.1.1")), link: "eth1".to_owned() }];
        Some(Learned { protocol, metric, kind: RouteKind::Unicast, hops })
    };
    let heard = running.listed();
    let event = Event::Learned(prefix("10.7.0.0/16"), learned(METRIC, PROTOCOL));
    assert!(heard.contains(&event), "{event:?} is not among {heard:?}");
    running.say(Command::Track(ip("10.7.0.1")));
    running.hears(&Event::NextHop(ip("10.7.0.1"), Some(METRIC)));
    running.want("10.9.0.0/16", by(&["192.0.2.1"]));
    running.say(Command::Loaded);
    running.say(Command::Clear);
    // It goes on hearing what changes, and whatever it did before that is done.
    let ours = Route::via(prefix("10.8.0.0/16"), ip("192.0.1.1"), world.links[0]);
    world.rtnl.put_route(&Route { protocol: PROTOCOL, metric: 9, ..ours }).unwrap();
    running.hears(&Event::Learned(prefix("10.8.0.0/16"), learned(9, PROTOCOL)));
    running.status("nothing is its own", |status| (status.wanted, status.there, status.kept) == (0, 0, 0));
    running.killed();
    world.leads("10.7.0.0/16", &["192.0.1.1"]);
    world.leads("10.8.0.0/16", &["192.0.1.1"]);
    world.leads("10.9.0.0/16", &[]);
}
