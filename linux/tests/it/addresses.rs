//! Addresses of both families are read back as they were put.

use linux::netlink::{LinkAddress, Mac, PROTOCOL, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;

#[test]
fn addresses_are_read_back_as_they_were_put() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    rtnl.add_bridge("lan0", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
    let lan = rtnl.link("lan0").unwrap().unwrap().index;
    for text in ["192.0.2.5/24", "198.51.100.1/32", "fd00:1::5/64", "fd00:2::5/128"] {
        let prefix: Prefix = text.parse().unwrap();
        let find = |rtnl: &mut Rtnl| {
            rtnl.addresses(Some(lan)).unwrap().into_iter().filter(|a| a.prefix == prefix).collect::<Vec<_>>()
        };
        // Twice: it is idempotent.
        for _ in 0..2 {
            rtnl.put_address(lan, prefix).unwrap();
        }
        let whole = LinkAddress {
            index: lan,
            prefix,
            global: true,
            secondary: false,
            settled: true,
            with_route: true,
            protocol: PROTOCOL,
        };
        assert_eq!(find(&mut rtnl), [whole]);
        rtnl.delete_address(lan, prefix).unwrap();
        rtnl.put_address_without_route(lan, prefix).unwrap();
        assert_eq!(find(&mut rtnl), [LinkAddress { with_route: false, ..whole }]);
        rtnl.delete_address(lan, prefix).unwrap();
        rtnl.delete_address(lan, prefix).unwrap();
        assert_eq!(find(&mut rtnl), [], "{text}");
    }
    for text in ["192.0.2.5/24", "192.0.2.6/24"] {
        rtnl.put_address(lan, text.parse().unwrap()).unwrap();
    }
    let both = rtnl.addresses(Some(lan)).unwrap();
    let second: Vec<_> = both.iter().filter(|a| !a.prefix.is_ipv6()).map(|a| a.secondary).collect();
    assert_eq!(second, [false, true]);
}
