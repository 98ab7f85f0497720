//! Links, addresses, routes and neighbours are made, found and removed.

use linux::netlink::{LinkKind, Mac, Neighbour, NewVeth, Route, Rtnl, Vxlan};
use linux::netns::NetNs;
use meta::Prefix;
use std::os::fd::AsFd;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

#[test]
fn a_bridge_with_a_port_whose_other_end_is_in_another_namespace() {
    let host = NetNs::create().unwrap();
    let pod = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    rtnl.add_bridge("br0", MAC, 1400).unwrap();
    let bridge = rtnl.link("br0").unwrap().unwrap();
    assert_eq!((bridge.kind, bridge.mtu, bridge.up, bridge.mac), (Some(LinkKind::Bridge), 1400, true, Some(MAC)));
    assert!(rtnl.add_bridge("br0", MAC, 1400).unwrap_err().is_exists());

    let veth = NewVeth {
        name: "veth0",
        mac: None,
        master: Some(bridge.index),
        mtu: 1400,
        peer_name: "eth0",
        peer_mac: Some(Mac([2, 0, 0, 0, 0, 9])),
        peer_ns: Some(pod.as_fd()),
    };
    rtnl.add_veth(&veth).unwrap();
    let port = rtnl.link("veth0").unwrap().unwrap();
    assert_eq!((port.master, port.hairpin), (Some(bridge.index), false));
    rtnl.set_hairpin(port.index, true).unwrap();
    assert!(rtnl.link("veth0").unwrap().unwrap().hairpin);

    let mut inside = Rtnl::open_in(&pod).unwrap();
    let eth0 = inside.link("eth0").unwrap().unwrap();
    inside.set_up(eth0.index, true).unwrap();
    assert!(inside.link_by_index(eth0.index).unwrap().unwrap().up);
    let address: Prefix = "10.1.0.2/24".parse().unwrap();
    inside.put_address_without_route(eth0.index, address).unwrap();
    inside.put_address_without_route(eth0.index, address).unwrap();
    assert_eq!(inside.addresses(Some(eth0.index)).unwrap().iter().filter(|a| a.prefix.addr.is_ipv4()).count(), 1);
    let gateway = "10.1.0.1".parse().unwrap();
    inside.put_route(&Route::link(Prefix::host(std::net::Ipv4Addr::new(10, 1, 0, 1)), eth0.index)).unwrap();
    inside.put_route(&Route::via("0.0.0.0/0".parse().unwrap(), gateway, eth0.index)).unwrap();
    inside.put_neighbour(&Neighbour::permanent(eth0.index, gateway, MAC)).unwrap();
    let default = inside.default_route().unwrap().unwrap();
    assert_eq!((default.gateway(), default.index()), (Some(gateway), Some(eth0.index)));
    assert!(inside.neighbours().unwrap().iter().any(|n| n.addr == gateway && n.is_permanent() && n.mac == Some(MAC)));

    inside.delete_neighbour(eth0.index, gateway).unwrap();
    inside.delete_route(&default).unwrap();
    assert_eq!(inside.default_route().unwrap(), None);
    inside.delete_address(eth0.index, address).unwrap();
    inside.delete_address(eth0.index, address).unwrap();

    rtnl.delete_link("veth0").unwrap();
    rtnl.delete_link("veth0").unwrap();
    assert_eq!(inside.link("eth0").unwrap(), None);
}

#[test]
fn a_vxlan_link_is_read_back_as_it_was_made() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    rtnl.add_bridge("lan0", MAC, 1500).unwrap();
    let lan = rtnl.link("lan0").unwrap().unwrap().index;
    let four = Vxlan { id: 1, port: 8472, local: "192.0.2.5".parse().ok(), parent: Some(lan), ..Vxlan::default() };
    let six = Vxlan { id: 4096, port: 4789, local: "fd00::5".parse().ok(), learning: true, gbp: true, parent: None };
    for (name, vxlan) in [("vx4", four), ("vx6", six)] {
        match rtnl.add_vxlan(name, Some(MAC), 1450, &vxlan) {
            Err(e) if e.errno() == libc::EOPNOTSUPP => return println!("skipped: this kernel has no VXLAN ({e})"),
            made => made.unwrap(),
        }
        let link = rtnl.link(name).unwrap().unwrap();
        assert_eq!((link.mtu, link.up, link.mac), (1450, true, Some(MAC)));
        assert_eq!(link.kind, Some(LinkKind::Vxlan(vxlan.clone())));
        assert!(rtnl.add_vxlan(name, None, 1450, &vxlan).unwrap_err().is_exists());
        rtnl.delete_link(name).unwrap();
    }
}

#[test]
fn the_kernels_own_words_are_told() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    let e = rtnl.add_bridge("a-name-longer-than-fifteen", MAC, 1500).unwrap_err();
    assert!(e.to_string().starts_with("adding bridge a-name-longer-than-fifteen: "), "{e}");
}

#[test]
fn a_bound_namespace_outlives_its_maker_and_is_removed() {
    let dir = std::env::temp_dir().join(format!("netns-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("one");
    drop(NetNs::create_at(&path).unwrap());
    let again = NetNs::open(&path).unwrap();
    assert_eq!(Rtnl::open_in(&again).unwrap().links().unwrap()[0].name, "lo");
    NetNs::remove_at(&path).unwrap();
    NetNs::remove_at(&path).unwrap();
    assert!(!path.exists());
    std::fs::remove_dir(&dir).unwrap();
}

#[test]
fn settings_are_those_of_the_namespace() {
    let host = NetNs::create().unwrap();
    let outside = linux::sysctl::get("net.ipv4.ip_forward").unwrap();
    let inside = host.run(|| {
        // A new namespace may begin with the first one's settings.
        let other = if linux::sysctl::get("net.ipv4.ip_forward").unwrap() == "1" { "0" } else { "1" };
        let old = linux::sysctl::set("net.ipv4.ip_forward", other).unwrap();
        (old, other, linux::sysctl::get("net.ipv4.ip_forward").unwrap())
    });
    let (old, other, new) = inside.unwrap();
    assert!(old != other && new == other, "{old} {other} {new}");
    assert_eq!(linux::sysctl::get("net.ipv4.ip_forward").unwrap(), outside);
}

#[test]
fn a_host_has_the_address_that_leads_outside_and_without_one_that_of_any_link() {
    use linux::host_address::{Wanted, choose, look};
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    let chosen = || choose(&host.run(look).unwrap().unwrap(), &Wanted::default(), None);
    assert_eq!(chosen(), None, "loopback is none");
    rtnl.add_bridge("lan0", MAC, 1500).unwrap();
    rtnl.add_bridge("lan1", Mac([2, 0, 0, 0, 0, 2]), 1500).unwrap();
    let [first, second] = ["lan0", "lan1"].map(|name| rtnl.link(name).unwrap().unwrap().index);
    rtnl.put_address(first, "192.0.2.5/24".parse().unwrap()).unwrap();
    rtnl.put_address(second, "203.0.113.7/24".parse().unwrap()).unwrap();
    assert_eq!(rtnl.route_to("192.88.99.1".parse().unwrap()).unwrap(), None);
    assert_eq!(chosen(), Some("192.0.2.5".parse().unwrap()));
    let gateway = "203.0.113.1".parse().unwrap();
    rtnl.put_route(&Route::via("0.0.0.0/0".parse().unwrap(), gateway, second)).unwrap();
    let route = rtnl.route_to("192.88.99.1".parse().unwrap()).unwrap().unwrap();
    assert_eq!((route.gateway(), route.source), (Some(gateway), Some("203.0.113.7".parse().unwrap())));
    assert_eq!(chosen(), Some("203.0.113.7".parse().unwrap()));
}
