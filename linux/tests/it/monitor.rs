//! Changes of addresses and of the way out are heard of.

use linux::netlink::{Mac, Monitor, Route, Rtnl};
use linux::netns::NetNs;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

#[test]
fn what_may_change_the_hosts_address_is_heard_of() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    rtnl.add_bridge("lan0", MAC, 1500).unwrap();
    let lan = rtnl.link("lan0").unwrap().unwrap().index;
    let monitor = Monitor::open_in(&host).unwrap();
    let heard = |what: &str, expected: bool| {
        // The kernel tells it inside the call that changes it.
        assert_eq!(monitor.drain().unwrap(), expected, "{what}");
    };
    heard("nothing", false);
    let address = "192.0.2.5/24".parse().unwrap();
    rtnl.add_address(lan, address).unwrap();
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
