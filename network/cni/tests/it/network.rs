//! The built-in network: pods reach each other, the host, the outside; host ports; nothing leaks.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use cni::{Network, PortMapping, Protocol};
use linux::netlink::{Mac, NewVeth, Route, Rtnl};
use linux::netns::NetNs;
use linux::nft::Nft;
use meta::Prefix;

use crate::world::{World, ask_tcp, ask_udp, path_of, pod, port, serve_tcp, serve_tcp_at, serve_udp};

#[test]
fn pods_reach_each_other_and_the_host_with_their_own_addresses() {
    let world = World::new();
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        let result = network.add(&pod("a", &path_of(&a), &[])).unwrap();
        assert_eq!(result.ips[0].address, "10.42.0.2/24");
        assert_eq!(result.ips[0].gateway, Some("10.42.0.1".parse().unwrap()));
        let again = network.add(&pod("a", &path_of(&a), &[]));
        assert_eq!(again.unwrap().ip(), result.ip(), "adding again gives the same address");
        assert_eq!(network.add(&pod("b", &path_of(&b), &[])).unwrap().ips[0].address, "10.42.0.3/24");
        network.check(&pod("a", &path_of(&a), &[])).unwrap();
        network.status().unwrap();
    });
    serve_tcp(&a, 80);
    serve_udp(&a, 53);
    serve_tcp(&world.host, 6443);
    assert_eq!(ask_tcp(&b, "10.42.0.2:80").unwrap(), "10.42.0.3");
    assert_eq!(ask_udp(&b, "10.42.0.2:53").unwrap(), "10.42.0.3");
    assert_eq!(ask_tcp(&world.host, "10.42.0.2:80").unwrap(), "10.42.0.1");
    assert_eq!(ask_tcp(&b, "10.42.0.1:6443").unwrap(), "10.42.0.3");
    assert_eq!(ask_tcp(&a, "127.0.0.1:80").unwrap(), "127.0.0.1");
}

#[test]
fn what_pods_send_outside_takes_the_hosts_address() {
    let world = World::new();
    let (a, outside) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    uplink(&world.host, &outside);
    world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        assert_eq!(network.mtu(), 1380, "the MTU is the uplink's");
        network.add(&pod("a", &path_of(&a), &[])).unwrap();
    });
    serve_tcp(&outside, 80);
    assert_eq!(ask_tcp(&a, "192.168.7.2:80").unwrap(), "192.168.7.1");
}

/// Pods had IPv4 alone, whatever the node was given.
#[test]
fn pods_of_two_families_reach_each_other_the_host_and_the_outside_in_both() {
    let mut world = World::new();
    world.config.subnets = "10.42.0.0/24,fd42:0:0:7::/64".parse().unwrap();
    world.config.cluster_ranges.push("fd42::/48".parse().unwrap());
    world.config.only_here.push("fd42::/48".parse().unwrap());
    let (a, b, outside) = (NetNs::create().unwrap(), NetNs::create().unwrap(), NetNs::create().unwrap());
    uplink(&world.host, &outside);
    let before = world.on_host(|| linux::sysctl::get("net/ipv6/conf/all/forwarding").unwrap());
    let ports = [port(8080, 80, Protocol::Tcp)];
    let network = world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        let result = network.add(&pod("a", &path_of(&a), &ports)).unwrap();
        let addresses: Vec<_> = result.ips.iter().map(|ip| ip.address.as_str()).collect();
        assert_eq!(addresses, ["10.42.0.2/24", "fd42:0:0:7::2/64"]);
        assert_eq!(result.routes.iter().map(|route| route.dst.as_str()).collect::<Vec<_>>(), ["0.0.0.0/0", "::/0"]);
        network.add(&pod("b", &path_of(&b), &[])).unwrap();
        drop(network);
        // The next life knows them.
        let network = Network::new(world.config.clone()).unwrap();
        network.check(&pod("a", &path_of(&a), &[])).unwrap();
        assert_eq!(network.addresses("b", "eth0").len(), 2);
        network
    });
    serve_tcp(&a, 80);
    serve_tcp_at(&a, "[fd42:0:0:7::2]:80");
    serve_tcp_at(&outside, "[fd07::2]:80");
    assert_eq!(ask_tcp(&b, "10.42.0.2:80").unwrap(), "10.42.0.3");
    assert_eq!(ask_tcp(&b, "[fd42:0:0:7::2]:80").unwrap(), "fd42:0:0:7::3");
    assert_eq!(ask_tcp(&world.host, "[fd42:0:0:7::2]:80").unwrap(), "fd42:0:0:7::1");
    assert_eq!(ask_tcp(&a, "[fd07::2]:80").unwrap(), "fd07::1", "the host's own");
    assert_eq!(ask_tcp(&outside, "[fd07::1]:8080").unwrap(), "fd07::2", "a host port");
    assert!(ask_tcp(&a, "[fd07::1]:8080").is_ok(), "its own by the host's port");
    // A pod speaks for itself alone.
    let mut inside = Rtnl::open_in(&b).unwrap();
    let link = inside.link("eth0").unwrap().unwrap().index;
    inside.put_address(link, "fd42:0:0:7::99/128".parse().unwrap()).unwrap();
    let heard = world.on_host(|| UdpSocket::bind("[fd42:0:0:7::1]:7000").unwrap());
    heard.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    b.run(|| {
        for from in ["[fd42:0:0:7::99]:1", "[fd42:0:0:7::3]:1"] {
            UdpSocket::bind(from).unwrap().send_to(from.as_bytes(), "[fd42:0:0:7::1]:7000").unwrap();
        }
    })
    .unwrap();
    let mut buffer = [0; 64];
    let read = heard.recv(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..read]), "[fd42:0:0:7::3]:1");
    world.on_host(|| {
        network.del("a", "eth0").unwrap();
        assert_eq!(network.addresses("a", "eth0"), Vec::<std::net::IpAddr>::new());
        cni::teardown(&world.config).unwrap();
        assert_eq!(linux::sysctl::get("net/ipv6/conf/all/forwarding").unwrap(), before);
        assert_eq!(Nft::open().unwrap().tables().unwrap(), []);
    });
}

/// A firewall that is open for the addresses of pods was open for who took one of them on the wire.
#[test]
fn a_neighbour_who_says_that_he_is_a_pod_is_not_heard() {
    let world = World::new();
    let outside = NetNs::create().unwrap();
    uplink(&world.host, &outside);
    let heard = world.on_host(|| {
        Network::new(world.config.clone()).unwrap();
        UdpSocket::bind("192.168.7.1:7000").unwrap()
    });
    heard.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut far = Rtnl::open_in(&outside).unwrap();
    let link = far.link("eth0").unwrap().unwrap().index;
    for address in ["10.42.0.9", "10.42.9.9"] {
        far.put_address(link, Prefix::new(address.parse::<std::net::IpAddr>().unwrap(), 32)).unwrap();
    }
    outside
        .run(|| {
            for from in ["10.42.0.9:1", "10.42.9.9:1", "192.168.7.2:1"] {
                UdpSocket::bind(from).unwrap().send_to(from.as_bytes(), "192.168.7.1:7000").unwrap();
            }
        })
        .unwrap();
    let mut buffer = [0; 64];
    let read = heard.recv(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..read]), "192.168.7.2:1", "the last that was sent is the first heard");
}

#[test]
fn host_ports_lead_to_pods_from_outside_the_host_loopback_and_the_pod_itself() {
    let world = World::new();
    let (a, b, outside) = (NetNs::create().unwrap(), NetNs::create().unwrap(), NetNs::create().unwrap());
    uplink(&world.host, &outside);
    let only_here = PortMapping { host_ip: Some("192.168.7.1".parse().unwrap()), ..port(8080, 81, Protocol::Tcp) };
    let a_ports = [port(8080, 80, Protocol::Tcp), port(8080, 53, Protocol::Udp)];
    world.on_host(|| {
        up(&mut Rtnl::open().unwrap(), "lo");
        let network = Network::new(world.config.clone()).unwrap();
        network.add(&pod("a", &path_of(&a), &a_ports)).unwrap();
        let e = network.add(&pod("b", &path_of(&b), &a_ports[..1])).unwrap_err();
        assert_eq!(e.to_string(), "host port 8080 is in use by a/eth0");
        assert_eq!(network.addresses("b", "eth0"), Vec::<std::net::IpAddr>::new(), "a failed add leaves nothing");
        network.add(&pod("b", &path_of(&b), &[only_here])).unwrap();
    });
    serve_tcp(&a, 80);
    serve_udp(&a, 53);
    serve_tcp(&b, 81);
    assert_eq!(ask_udp(&outside, "192.168.7.1:8080").unwrap(), "192.168.7.2");
    assert_eq!(ask_tcp(&world.host, "127.0.0.1:8080").unwrap(), "10.42.0.1");
    assert_eq!(ask_tcp(&world.host, "10.42.0.1:8080").unwrap(), "10.42.0.1");
    assert_eq!(ask_tcp(&a, "10.42.0.1:8080").unwrap(), "10.42.0.1", "a pod reaches itself by its host port");
    assert_eq!(ask_tcp(&b, "10.42.0.1:8080").unwrap(), "10.42.0.4");
    // The mapping with a host address goes first there.
    assert_eq!(ask_tcp(&outside, "192.168.7.1:8080").unwrap(), "192.168.7.2");
    serve_tcp(&world.host, 9000);
    world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        network.del("b", "eth0").unwrap();
        network.del("b", "eth0").unwrap();
    });
    assert_eq!(ask_tcp(&outside, "192.168.7.1:8080").unwrap(), "192.168.7.2");
    world.on_host(|| Network::new(world.config.clone()).unwrap().del("a", "eth0").unwrap());
    assert!(ask_tcp(&outside, "192.168.7.1:8080").is_err());
}

#[test]
fn after_a_crash_everything_is_found_again_and_what_nobody_claims_is_collected() {
    let world = World::new();
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        network.add(&pod("a", &path_of(&a), &[port(80, 80, Protocol::Tcp)])).unwrap();
        network.add(&pod("b", &path_of(&b), &[port(81, 80, Protocol::Tcp)])).unwrap();
    });
    drop(b);
    world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        network.check(&pod("a", &path_of(&a), &[])).unwrap();
        assert_eq!(network.gc(&[("a", "eth0")]).unwrap(), ["10.42.0.3".parse::<std::net::Ipv4Addr>().unwrap()]);
        network.check(&pod("a", &path_of(&a), &[])).unwrap();
        let ports = Nft::open().unwrap().elements(linux::nft::Family::Ip, "fk-test-cni", "host-ports").unwrap();
        assert_eq!(ports.len(), 1);
    });
    serve_tcp(&a, 80);
    assert_eq!(ask_tcp(&world.host, "10.42.0.1:80").unwrap(), "10.42.0.1");
}

#[test]
fn teardown_leaves_the_host_as_it_was() {
    let world = World::new();
    let a = NetNs::create().unwrap();
    world.on_host(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let before =
            (rtnl.links().unwrap(), rtnl.routes().unwrap(), linux::sysctl::get("net.ipv4.ip_forward").unwrap());
        cni::teardown(&world.config).unwrap();
        let network = Network::new(world.config.clone()).unwrap();
        network.add(&pod("a", &path_of(&a), &[port(80, 80, Protocol::Tcp)])).unwrap();
        assert_eq!(linux::sysctl::get("net.ipv4.ip_forward").unwrap(), "1");
        cni::teardown(&world.config).unwrap();
        let after = (rtnl.links().unwrap(), rtnl.routes().unwrap(), linux::sysctl::get("net.ipv4.ip_forward").unwrap());
        assert_eq!(before, after);
        assert_eq!(Nft::open().unwrap().tables().unwrap(), []);
        assert!(!world.config.state_dir.exists());
        cni::teardown(&world.config).unwrap();
    });
    assert_eq!(Rtnl::open_in(&a).unwrap().link("eth0").unwrap(), None);
}

/// A host that forwards believes no router any more: its own way out by IPv6 ended after half an hour.
#[test]
fn a_host_whose_way_out_came_from_a_router_goes_on_hearing_it() {
    let mut world = World::new();
    world.config.subnets = "10.42.0.0/24,fd42:0:0:7::/64".parse().unwrap();
    let outside = NetNs::create().unwrap();
    uplink(&world.host, &outside);
    world.on_host(|| {
        let hears = || linux::sysctl::get("net/ipv6/conf/uplink/accept_ra").unwrap();
        linux::sysctl::set("net/ipv6/conf/uplink/accept_ra", "1").unwrap();
        Network::new(world.config.clone()).unwrap();
        assert_eq!(hears(), "1", "no router said anything here");
        cni::teardown(&world.config).unwrap();
        let mut rtnl = Rtnl::open().unwrap();
        let link = rtnl.link("uplink").unwrap().unwrap().index;
        let said = Route::via("::/0".parse().unwrap(), "fd07::2".parse().unwrap(), link);
        rtnl.put_route(&Route { protocol: 9, ..said }).unwrap();
        Network::new(world.config.clone()).unwrap();
        Network::new(world.config.clone()).unwrap();
        assert_eq!(hears(), "2");
        cni::teardown(&world.config).unwrap();
        assert_eq!(hears(), "1");
        assert_eq!(std::fs::read_dir(&world.config.settings_dir).map_or(0, Iterator::count), 0);
    });
}

#[test]
fn what_is_not_ours_is_refused_in_a_sentence() {
    let world = World::new();
    let outside = NetNs::create().unwrap();
    uplink(&world.host, &outside);
    world.on_host(|| {
        let e = Network::new(cni::Config { bridge: "uplink".into(), ..world.config.clone() }).unwrap_err();
        let text = "uplink is there already and is not ours: it is not a bridge; give the network another bridge name";
        assert_eq!(e.to_string(), text);
        let tiny = cni::Config { subnets: "10.0.0.0/31".parse().unwrap(), ..world.config.clone() };
        let e = Network::new(tiny).unwrap_err();
        assert_eq!(e.to_string(), "network configuration: subnet: 10.0.0.0/31 has no room for a gateway and a pod");
    });
}

/// Joins the host to an outside by 192.168.7.0/24.
fn uplink(host: &NetNs, outside: &NetNs) {
    let mut rtnl = Rtnl::open_in(host).unwrap();
    let veth = NewVeth {
        name: "uplink",
        mac: Some(Mac([2, 0, 0, 0, 7, 1])),
        master: None,
        mtu: 1380,
        peer_name: "eth0",
        peer_mac: None,
        peer_ns: Some(outside.as_fd()),
    };
    rtnl.add_veth(&veth).unwrap();
    let link = rtnl.link("uplink").unwrap().unwrap();
    rtnl.put_address(link.index, "192.168.7.1/24".parse().unwrap()).unwrap();
    let mut far = Rtnl::open_in(outside).unwrap();
    let peer = up(&mut far, "eth0");
    far.put_address(peer, "192.168.7.2/24".parse().unwrap()).unwrap();
    rtnl.put_address(link.index, "fd07::1/64".parse().unwrap()).unwrap();
    far.put_address(peer, "fd07::2/64".parse().unwrap()).unwrap();
    let all: Prefix = "0.0.0.0/0".parse().unwrap();
    rtnl.put_route(&Route::via(all, "192.168.7.2".parse().unwrap(), link.index)).unwrap();
}

fn up(rtnl: &mut Rtnl, name: &str) -> u32 {
    let index = rtnl.link(name).unwrap().unwrap().index;
    rtnl.set_up(index, true).unwrap();
    index
}
