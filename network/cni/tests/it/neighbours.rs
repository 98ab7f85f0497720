//! What a pod does to its neighbours on the bridge: nothing. It can't be a router to them, nor speak for another.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use cni::Network;
use linux::netlink::{Mac, NewVeth, Rtnl};
use linux::netns::NetNs;
use linux::nft::{Batch, Family, Nft};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sockopt};

use crate::world::{World, ask_udp, path_of, pod, serve_udp};

/// For what must not arrive.
const SHORT: Duration = Duration::from_millis(300);

fn index_of(ns: &NetNs, name: &str) -> u32 {
    Rtnl::open_in(ns).unwrap().link(name).unwrap().unwrap().index
}

fn addresses(ns: &NetNs) -> Vec<String> {
    let index = index_of(ns, "eth0");
    let there = Rtnl::open_in(ns).unwrap().addresses(Some(index)).unwrap();
    there.iter().map(|a| a.prefix.to_string()).collect()
}

/// Turns IPv6 of an interface on, with what a kernel does by default.
fn with_ipv6(ns: &NetNs) {
    ns.run(|| {
        for (name, value) in [("accept_dad", "0"), ("accept_ra", "1"), ("disable_ipv6", "0")] {
            linux::sysctl::set(&format!("net/ipv6/conf/eth0/{name}"), value).unwrap();
        }
    })
    .unwrap();
}

/// Says to all neighbours: I am a router, and fd00:bad::/64 is here.
fn advertise(ns: &NetNs) {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0]);
    message.extend("fd00:bad::".parse::<Ipv6Addr>().unwrap().octets());
    let to = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index_of(ns, "eth0"));
    ns.run(|| {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
        sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
        rustix::net::sendto(&socket, &message, SendFlags::empty(), &to).unwrap();
    })
    .unwrap();
}

/// A namespace on the bridge that is no pod of the network, with IPv6.
fn stranger(world: &World) -> NetNs {
    use std::os::fd::AsFd;
    let ns = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&world.host).unwrap();
    let bridge = rtnl.link("fk-test").unwrap().unwrap().index;
    let veth = NewVeth {
        name: "stranger",
        mac: None,
        master: Some(bridge),
        mtu: 1400,
        peer_name: "eth0",
        peer_mac: Some(Mac([2, 0, 0, 0, 9, 9])),
        peer_ns: Some(ns.as_fd()),
    };
    rtnl.add_veth(&veth).unwrap();
    let mut inside = Rtnl::open_in(&ns).unwrap();
    let index = inside.link("eth0").unwrap().unwrap().index;
    inside.set_up(index, true).unwrap();
    with_ipv6(&ns);
    ns
}

#[test]
fn a_router_advertisement_of_a_neighbour_changes_nothing() {
    let world = World::new();
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        network.add(&pod("a", &path_of(&a), &[])).unwrap();
        network.add(&pod("b", &path_of(&b), &[])).unwrap();
    });
    let before = addresses(&b);
    assert_eq!(before, ["10.42.0.2/24", "10.42.0.3/24"][1..], "no IPv6 address of its own making");
    let control = stranger(&world);
    // A pod that may: NET_ADMIN.
    with_ipv6(&a);
    with_ipv6(&b);
    std::thread::sleep(SHORT);
    advertise(&a);
    std::thread::sleep(SHORT);
    let took = |ns: &NetNs| addresses(ns).iter().any(|a| a.starts_with("fd00:bad:"));
    assert!(!took(&control) && !took(&b), "the bridge does not take it from a pod");
    // Without that rule: the pod as it was made does not listen, a host as it comes does.
    world.on_host(|| {
        let mut batch = Batch::new(Family::Bridge, "fk-test-cni");
        batch.delete_table();
        Nft::open().unwrap().commit(batch).unwrap();
    });
    b.run(|| {
        assert_eq!(linux::sysctl::set("net/ipv6/conf/eth0/accept_ra", "0").unwrap(), "1");
    })
    .unwrap();
    advertise(&a);
    std::thread::sleep(SHORT);
    assert!(took(&control), "the advertisement is one");
    assert!(!took(&b));
}

#[test]
fn pods_take_no_advice_of_the_way_from_anyone() {
    let world = World::new();
    let a = NetNs::create().unwrap();
    world.on_host(|| {
        Network::new(world.config.clone()).unwrap().add(&pod("a", &path_of(&a), &[])).unwrap();
        assert_eq!(linux::sysctl::get("net.ipv4.conf.fk-test.accept_redirects").unwrap(), "0");
    });
    a.run(|| {
        for (name, value) in [
            ("net.ipv4.conf.all.accept_redirects", "0"),
            ("net.ipv4.conf.eth0.accept_redirects", "0"),
            ("net.ipv4.conf.eth0.proxy_arp", "0"),
            ("net.ipv6.conf.eth0.accept_ra", "0"),
            ("net.ipv6.conf.eth0.accept_redirects", "0"),
            ("net.ipv6.conf.eth0.disable_ipv6", "1"),
            // A pod without an IPv6 address still has ::1.
            ("net.ipv6.conf.lo.disable_ipv6", "0"),
        ] {
            assert_eq!(linux::sysctl::get(name).unwrap(), value, "{name}");
        }
    })
    .unwrap();
}

/// Sends from an address that the pod gave itself; the host's answer, if it heard.
fn ask_as(ns: &NetNs, from: &str, to: &str) -> std::io::Result<String> {
    ns.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let index = rtnl.link("eth0").unwrap().unwrap().index;
        rtnl.put_address_without_route(index, format!("{from}/32").parse().unwrap()).unwrap();
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(SHORT))?;
        socket.send_to(b"who am I?", to)?;
        let mut buffer = [0; 64];
        let read = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
    })
    .unwrap()
}

/// Counts what arrives at a port of the host.
fn arrives(world: &World, port: u16, send: impl FnOnce()) -> bool {
    let socket = world.on_host(|| UdpSocket::bind(("0.0.0.0", port)).unwrap());
    socket.set_read_timeout(Some(SHORT)).unwrap();
    send();
    socket.recv(&mut [0; 64]).is_ok()
}

#[test]
fn a_pod_can_not_send_from_an_address_that_is_not_its_own() {
    let world = World::new();
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        network.add(&pod("a", &path_of(&a), &[])).unwrap();
        network.add(&pod("b", &path_of(&b), &[])).unwrap();
    });
    for (port, from) in [(9001, "10.42.0.3"), (9002, "10.42.0.77"), (9003, "192.0.2.1"), (9004, "10.42.0.1")] {
        let heard = arrives(&world, port, || drop(ask_as(&a, from, &format!("10.42.0.1:{port}"))));
        assert!(!heard, "{from} is not the pod's");
    }
    // Another hardware address is not its own either.
    let own =
        |ns: &NetNs, port: u16| arrives(&world, port, || drop(ask_as(ns, "10.42.0.3", &format!("10.42.0.1:{port}"))));
    assert!(own(&b, 9005));
    // A daemon that starts again knows the pods that are there, and one that was removed is forgotten.
    world.on_host(|| {
        let network = Network::new(world.config.clone()).unwrap();
        network.del("a", "eth0").unwrap();
        let bound = Nft::open().unwrap().elements(Family::Bridge, "fk-test-cni", "pod-sources").unwrap();
        assert_eq!(bound.iter().map(|e| e.comment.clone().unwrap()).collect::<Vec<_>>(), ["b/eth0"]);
        network.gc(&[("b", "eth0")]).unwrap();
    });
    assert!(own(&b, 9006));
    serve_udp(&world.host, 9007);
    assert_eq!(ask_udp(&b, "10.42.0.1:9007").unwrap(), "10.42.0.3");
    world.on_host(|| {
        Network::new(world.config.clone()).unwrap().gc(&[]).unwrap();
        assert_eq!(Nft::open().unwrap().elements(Family::Bridge, "fk-test-cni", "pod-sources").unwrap(), []);
    });
}
