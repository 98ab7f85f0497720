//! Changes are heard of, in order and whole; among them those of addresses and of the way out.

use linux::host_address::{TOPICS, matters};
use linux::netlink::{
    Event, Fdb, Item, Mac, Monitor, Neighbour, NextHop, Route, RouteKind, Rtnl, Rule, RuleAction, Topic, Vxlan,
};
use linux::netns::NetNs;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

#[test]
fn what_may_change_the_hosts_address_is_heard_of() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    rtnl.add_bridge("lan0", MAC, 1500).unwrap();
    let lan = rtnl.link("lan0").unwrap().unwrap().index;
    let monitor = Monitor::open_in(&host, &TOPICS).unwrap();
    let heard = |what: &str, expected: bool| {
        // The kernel tells it inside the call that changes it.
        let mut heard = false;
        monitor.drain(|event| heard |= matters(&event)).unwrap();
        assert_eq!(heard, expected, "{what}");
    };
    heard("nothing", false);
    let address = "192.0.2.5/24".parse().unwrap();
    rtnl.put_address(lan, address).unwrap();
    heard("an address", true);
    heard("nothing more", false);
    let default = Route::via("0.0.0.0/0".parse().unwrap(), "192.0.2.1".parse().unwrap(), lan);
    rtnl.put_route(&default).unwrap();
    heard("a default route", true);
    rtnl.put_route(&Route::via("198.51.100.0/24".parse().unwrap(), "192.0.2.1".parse().unwrap(), lan)).unwrap();
    heard("a route to somewhere", false);
    rtnl.delete_route(&default).unwrap();
    heard("no default route any more", true);
    rtnl.delete_address(lan, address).unwrap();
    heard("the address is gone", true);
    rtnl.set_up(lan, false).unwrap();
    heard("the link is down", true);
}

fn heard(monitor: &Monitor) -> Vec<Event> {
    let mut events = Vec::new();
    monitor.drain(|event| events.push(event)).unwrap();
    events
}

#[test]
fn events_tell_what_lists_tell() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    rtnl.add_bridge("lan0", MAC, 1500).unwrap();
    let lan = rtnl.link("lan0").unwrap().unwrap().index;
    rtnl.put_address(lan, "192.0.2.5/24".parse().unwrap()).unwrap();
    let monitor = Monitor::open_in(&host, &[Topic::Routes, Topic::Neighbours, Topic::Rules]).unwrap();
    assert_eq!(heard(&monitor), []);

    let dst = "10.7.0.0/16".parse().unwrap();
    let hops = vec![NextHop::via([192, 0, 2, 1], lan), NextHop::via([192, 0, 2, 2], lan)];
    let (first, second) = (Route::multipath(dst, hops), Route::reject(dst, RouteKind::Blackhole));
    let rule = Rule { from: Some(dst), ..Rule::new(false, 100, RuleAction::Table(1000)) };
    let neighbour = Neighbour::permanent(lan, [192, 0, 2, 1], MAC);
    rtnl.put_route(&first).unwrap();
    rtnl.put_route(&second).unwrap();
    rtnl.delete_route(&second).unwrap();
    rtnl.put_rule(&rule).unwrap();
    rtnl.delete_rule(&rule).unwrap();
    rtnl.put_neighbour(&neighbour).unwrap();
    let expected = [
        Event::Set(Item::Route(first)),
        Event::Set(Item::Route(second.clone())),
        Event::Gone(Item::Route(second)),
        Event::Set(Item::Rule(rule.clone())),
        Event::Gone(Item::Rule(rule)),
        Event::Set(Item::Neighbour(neighbour)),
    ];
    assert_eq!(heard(&monitor), expected);

    let vxlan = Vxlan { id: 1, port: 8472, local: "192.0.2.5".parse().ok(), ..Vxlan::default() };
    match rtnl.add_vxlan("vx0", Some(MAC), 1450, &vxlan) {
        Err(e) if e.errno() == libc::EOPNOTSUPP => return println!("skipped: this kernel has no VXLAN ({e})"),
        made => made.unwrap(),
    }
    let index = rtnl.link("vx0").unwrap().unwrap().index;
    heard(&monitor);
    let entry = Fdb::remote(index, Mac([2, 0, 0, 0, 0, 7]), [192, 0, 2, 7]);
    rtnl.put_fdb(&entry).unwrap();
    rtnl.delete_fdb(&entry).unwrap();
    assert_eq!(heard(&monitor), [Event::Set(Item::Fdb(entry.clone())), Event::Gone(Item::Fdb(entry))]);
}

#[test]
fn who_hears_too_late_is_told_that_something_is_lost() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    rtnl.add_bridge("lan0", MAC, 1500).unwrap();
    let lan = rtnl.link("lan0").unwrap().unwrap().index;
    let monitor = Monitor::open_in(&host, &[Topic::Routes]).unwrap();
    // Of a few hundred bytes each, into a socket of some hundred kilobytes.
    for n in 0..4096u32 {
        let dst = meta::Prefix::new(std::net::Ipv4Addr::from(0x0a00_0000 + (n << 8)), 24);
        rtnl.put_route(&Route::link(dst, lan)).unwrap();
    }
    assert!(heard(&monitor).contains(&Event::Lost));
}

#[test]
fn what_one_has_done_oneself_need_not_be_heard() {
    let host = NetNs::create().unwrap();
    let (mut own, mut other) = (Rtnl::open_in(&host).unwrap(), Rtnl::open_in(&host).unwrap());
    let monitor = Monitor::open_in(&host, &[Topic::Routes]).unwrap();
    monitor.hold(1 << 20);
    let port = own.port();
    for dst in ["10.7.0.0/16", "fd07::/48"] {
        let hole = Route::reject(dst.parse().unwrap(), RouteKind::Blackhole);
        let except_own = || {
            let mut events = Vec::new();
            monitor.drain_except(port, |event| events.push(event)).unwrap();
            events
        };
        own.put_route(&hole).unwrap();
        own.delete_route(&hole).unwrap();
        other.put_route(&hole).unwrap();
        assert_eq!(except_own(), [Event::Set(Item::Route(hole.clone()))], "{dst}");
        own.delete_route(&hole).unwrap();
        assert_eq!(heard(&monitor), [Event::Gone(Item::Route(hole))], "{dst}");
    }
}
