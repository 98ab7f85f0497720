//! Packets between the pods of three hosts by each backend, and what happens when hosts leave, links are deleted and the
//! daemon is killed.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use linux::netlink::wireguard::{Device, Peer, PeerChange, PublicKey, SecretKey, WireGuard};
use linux::netlink::{Fdb, Mac, Route, Rtnl, Vxlan};
use meta::Prefix;

use crate::world::{Host, World, eventually, lacks};

fn conf(backend: &str) -> String {
    format!(r#"{{"Network": "10.5.0.0/16", "Backend": {backend}}}"#)
}

const HOST_GW: &str = r#"{"Type": "host-gw"}"#;
const VXLAN: &str = r#"{"Type": "vxlan"}"#;
const UDP: &str = r#"{"Type": "udp"}"#;
const WIREGUARD: &str = r#"{"Type": "wireguard"}"#;
const IPIP: &str = r#"{"Type": "ipip"}"#;

/// Those that this kernel has.
fn all() -> impl Iterator<Item = &'static str> {
    let some = [(WIREGUARD, "wireguard"), (IPIP, "ipip")].into_iter().filter(|(_, name)| !lacks(name));
    [HOST_GW, VXLAN, UDP].into_iter().chain(some.map(|(conf, _)| conf))
}

/// Every pod reaches every other one, with packets that fit and with some that don't, and so do the hosts themselves.
fn all_reach_all(hosts: &[Host]) {
    for from in hosts {
        for to in hosts.iter().filter(|to| to.address != from.address) {
            eventually(|| from.asks(to, 100));
            eventually(|| from.asks(to, 4000));
            eventually(|| from.streams(to, 200_000));
            eventually(|| from.asks_by_itself(to));
        }
    }
}

fn reach_and_leave(backend: &str, mtu: &str) {
    let world = World::new(&conf(backend));
    let mut hosts: Vec<Host> = (1..=3).map(|n| world.host(n)).collect();
    assert_eq!(hosts[0].told("FLANNEL_MTU"), mtu);
    assert_eq!(hosts[0].told("FLANNEL_NETWORK"), "10.5.0.0/16");
    all_reach_all(&hosts);

    // The daemon ends and starts again: what it had stays, and so does what leads to others.
    let (before, subnet) = (hosts[0].route(hosts[1].subnet()), hosts[0].subnet());
    hosts[0].stop();
    assert_eq!(hosts[0].route(hosts[1].subnet()).is_some(), backend != UDP && before.is_some());
    std::fs::remove_file(&hosts[0].subnet_file).unwrap();
    hosts[0].start();
    assert_eq!(hosts[0].subnet(), subnet);
    all_reach_all(&hosts);

    // One leaves: no packets go there any more.
    let gone = hosts.pop().unwrap();
    drop(gone.flannel);
    world.delete(&format!("subnets/{}", gone_key(&gone.subnet_file)));
    // The pods are told so: by the kernel, or by the packet loop (net or host unreachable).
    let lost: SocketAddr = format!("{}:7", gone_address(&gone.subnet_file)).parse().unwrap();
    eventually(|| match hosts[0].refusal(lost) {
        Some(101 | 113) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    all_reach_all(&hosts);
}

fn gone_key(file: &std::path::Path) -> String {
    gone_subnet(file).replace('/', "-")
}

fn gone_subnet(file: &std::path::Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let subnet = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).unwrap();
    subnet.parse::<meta::Prefix>().unwrap().network().to_string()
}

fn gone_address(file: &std::path::Path) -> String {
    gone_subnet(file).parse::<meta::Prefix>().unwrap().nth(2).unwrap().to_string()
}

#[test]
fn pods_reach_each_other_by_host_gw() {
    reach_and_leave(HOST_GW, "1500");
}

#[test]
fn pods_reach_each_other_by_vxlan() {
    reach_and_leave(VXLAN, "1450");
}

#[test]
fn pods_reach_each_other_by_udp() {
    reach_and_leave(UDP, "1472");
}

#[test]
fn pods_reach_each_other_by_wireguard() {
    if !lacks("wireguard") {
        reach_and_leave(WIREGUARD, "1420");
        reach_and_leave(r#"{"Type": "wireguard", "PSK": "uM2dNSdCLO1v1pBW1NLp2RFvGsCthM9v/6YMc173HGs="}"#, "1420");
    }
}

#[test]
fn pods_reach_each_other_by_ipip() {
    if !lacks("ipip") {
        reach_and_leave(IPIP, "1480");
    }
}

/// Nobody hears of a peer that was taken away: it is looked for.
#[test]
fn wireguards_peers_and_keys_are_healed_and_nobody_is_let_in_without_a_lease() {
    if lacks("wireguard") {
        return;
    }
    let world = World::new(&conf(WIREGUARD));
    let (one, two) = (world.host(1), world.host(2));
    eventually(|| one.asks(&two, 100));
    let (mut kernel, mut rtnl) = (WireGuard::open_in(&one.ns).unwrap(), one.rtnl());
    let index = rtnl.link("flannel-wg").unwrap().unwrap().index;
    let before = kernel.device(index).unwrap();
    assert_eq!((before.port, before.peers.len()), (51820, 1));
    assert_eq!(before.peers[0].endpoint.unwrap().to_string(), "192.0.2.2:51820");
    let back = |what: &str, kernel: &mut WireGuard| {
        let began = Instant::now();
        eventually(|| {
            let now = kernel.device(index).map_err(|error| error.to_string())?;
            let all = |device: &Device| device.peers.iter().map(|p| (p.key, p.allowed.clone())).collect::<Vec<_>>();
            if (now.key, now.port, all(&now)) == (before.key, before.port, all(&before)) {
                Ok(())
            } else {
                Err(format!("{what}: {now:?}"))
            }
        });
        assert!(began.elapsed() < Duration::from_secs(5), "{what}");
        eventually(|| one.asks(&two, 1000));
    };
    kernel.change(index, &[PeerChange::Remove(before.peers[0].key)]).unwrap();
    back("a peer", &mut kernel);
    let stranger = Peer {
        key: PublicKey([9; 32]),
        endpoint: None,
        psk: None,
        keepalive: 0,
        allowed: vec!["10.5.0.0/16".parse().unwrap()],
    };
    kernel.change(index, &[PeerChange::Put(stranger)]).unwrap();
    back("a stranger who is gone", &mut kernel);
    kernel.set(index, &SecretKey([0x55; 32]), 4711).unwrap();
    back("key and port", &mut kernel);
    // Its lease is taken away: nothing that it sends is taken any more.
    let key = two.subnets().key();
    drop(two);
    world.delete(&format!("subnets/{key}"));
    eventually(|| match kernel.device(index).unwrap().peers.len() {
        0 => Ok(()),
        some => Err(format!("{some} peers")),
    });
}

#[test]
fn one_link_of_wireguard_carries_both_families() {
    if lacks("wireguard") {
        return;
    }
    for mode in ["auto", "ipv4", "ipv6"] {
        let six = r#""EnableIPv6": true, "IPv6Network": "fd00:5::/48""#;
        let backend = format!(r#"{{"Type": "wireguard", "Mode": "{mode}"}}"#);
        let world = World::new(&conf(&backend).replacen('{', &format!("{{{six}, "), 1));
        let (one, two) = (world.host(1), world.host(2));
        for bytes in [100, 4000] {
            eventually(|| one.asks(&two, bytes));
            eventually(|| two.asks6(&one, true, bytes));
        }
        assert_eq!(one.rtnl().link("flannel-wg-v6").unwrap(), None, "{mode}");
    }
}

#[test]
fn a_backend_that_the_kernel_lacks_is_one_sentence() {
    for backend in ["vxlan", "wireguard", "ipip"] {
        let Some(why) = flannel::lacks(backend) else { continue };
        let world = World::new(&conf(&format!(r#"{{"Type": "{backend}"}}"#)));
        let mut host = world.bare_host(1);
        host.start();
        let said = host.failed();
        assert!(said.starts_with(why) && said.contains(&format!("module {backend}")), "{said}");
    }
}

/// A cluster whose backend is another when it starts again leaves nothing of the old one, and others' links alone.
#[test]
fn a_start_with_another_backend_clears_what_the_old_one_had() {
    let world = World::new(&conf(VXLAN));
    let mut hosts = [world.bare_host(1), world.bare_host(2)];
    for host in &mut hosts {
        host.tag = Some("ours".into());
        host.start();
        host.pod();
    }
    let [mut one, mut two] = hosts;
    eventually(|| one.asks(&two, 100));
    let mut rtnl = one.rtnl();
    let others = |name: &str, id: u32, alias: &str, rtnl: &mut Rtnl| {
        rtnl.add_vxlan(name, None, 1450, &Vxlan { id, port: 4789, ..Vxlan::default() }).unwrap();
        let index = rtnl.link(name).unwrap().unwrap().index;
        rtnl.set_alias(index, alias).unwrap();
    };
    others("flannel.7", 7, "theirs", &mut rtnl);
    for host in [&mut one, &mut two] {
        host.stop();
    }
    world.put("config", &conf(HOST_GW), 0);
    for host in [&mut one, &mut two] {
        host.start();
    }
    eventually(|| one.asks(&two, 1400));
    let mut left = || {
        let names = rtnl.links().unwrap().into_iter().map(|link| link.name);
        names.filter(|name| name.starts_with("flannel")).collect::<Vec<_>>()
    };
    // Before that the old way still led there.
    eventually(|| if left() == ["flannel.7"] { Ok(()) } else { Err(format!("{:?}", left())) });
    eventually(|| one.asks(&two, 1400));
    eventually(|| match one.route(two.subnet()) {
        Some((_, link)) if link == "eth0" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The first host asks the second's pod all the time; none of its packets may stay out for longer than a second.
#[test]
fn what_is_deleted_by_hand_is_healed() {
    for backend in all() {
        let world = World::new(&conf(backend));
        let (one, two) = (world.host(1), world.host(2));
        eventually(|| one.asks(&two, 100));
        let mut rtnl = one.rtnl();
        let routes = rtnl.routes().unwrap();
        let route = routes.iter().find(|r| r.is_ours() && r.dst.contains(two.pod_address().into())).unwrap();
        rtnl.delete_route(route).unwrap();
        eventually(|| one.asks(&two, 100));
        for link in ["flannel.1", "flannel0", "flannel-wg", "flannel.ipip"] {
            if rtnl.link(link).unwrap().is_some() {
                rtnl.delete_link(link).unwrap();
                eventually(|| one.asks(&two, 100));
            }
        }
    }
}

#[test]
fn both_families_have_their_ways() {
    for backend in all().filter(|backend| ![UDP, IPIP].contains(backend)) {
        let six = r#""EnableIPv6": true, "IPv6Network": "fd00:5::/48""#;
        let world = World::new(&conf(backend).replacen('{', &format!("{{{six}, "), 1));
        let (one, mut two) = (world.host(1), world.host(2));
        assert_eq!(one.told("FLANNEL_IPV6_NETWORK"), "fd00:5::/48");
        let mtu = [(VXLAN, "1430"), (WIREGUARD, "1420")].into_iter().find(|(other, _)| *other == backend);
        assert_eq!(one.told("FLANNEL_MTU"), mtu.map_or("1500", |(_, mtu)| mtu));
        let all_ways = |two: &Host| {
            eventually(|| one.asks(two, 1400));
            eventually(|| one.asks6(two, true, 1400));
            eventually(|| one.asks6(two, true, 4000));
            eventually(|| two.asks6(&one, true, 100));
            eventually(|| one.asks6(two, false, 100));
        };
        all_ways(&two);
        assert!(world.leases().iter().any(|(key, _, _)| *key == two.subnets().key()), "{:?}", world.leases());
        let subnets = two.subnets();
        two.stop();
        std::fs::remove_file(&two.subnet_file).unwrap();
        two.start();
        two.subnet();
        assert_eq!(two.subnets(), subnets);
        all_ways(&two);
        world.delete(&format!("subnets/{}", subnets.key()));
        eventually(|| one.route(subnets.v6.unwrap()).map_or(Ok(()), |route| Err(format!("{route:?}"))));
        assert!(backend != WIREGUARD || one.rtnl().link("flannel-wg-v6").unwrap().is_some());
    }
}

fn entries(rtnl: &mut Rtnl) -> Vec<Fdb> {
    rtnl.fdb().unwrap().into_iter().filter(|entry| entry.dst.is_some()).collect()
}

#[test]
fn a_host_of_upstreams_is_honoured_and_its_garbage_is_not() {
    let world = World::new(&conf(VXLAN));
    let one = world.host(1);
    let theirs = r#"{"PublicIP":"192.0.2.77","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:bf:4d:08:ae:67"}}"#;
    // What our lease lies in must not be led away.
    world.put("subnets/10.5.0.0-16", &theirs.replace("77", "66"), 0);
    world.put("subnets/0.0.0.0-0", &theirs.replace("77", "66"), 0);
    world.put("subnets/10.5.251.0-24", "{", 0);
    world.put("subnets/10.5.252.0-24", &theirs.replace("c6:bf", "01:00"), 0);
    world.put("subnets/10.5.253.0-24", theirs, 0);
    let subnet = "10.5.253.0/24".parse().unwrap();
    eventually(|| one.route(subnet).ok_or("no route".to_owned()));
    let mut rtnl = one.rtnl();
    let mac = Mac([0xc6, 0xbf, 0x4d, 0x08, 0xae, 0x67]);
    let entry: Vec<Fdb> = entries(&mut rtnl);
    assert_eq!(entry.len(), 1, "{entry:?}");
    assert_eq!((entry[0].mac, entry[0].dst), (mac, Some("192.0.2.77".parse().unwrap())));
    let neighbours = rtnl.neighbours().unwrap();
    assert!(neighbours.iter().any(|n| n.addr.to_string() == "10.5.253.0" && n.mac == Some(mac) && n.is_permanent()));
    assert_eq!(one.route("0.0.0.0/0".parse().unwrap()), None);

    // It gets another address: its place changes, and nothing else.
    world.put("subnets/10.5.253.0-24", &theirs.replace("77", "78"), 0);
    eventually(|| match entries(&mut rtnl)[..] {
        [Fdb { dst: Some(host), .. }] if host.to_string() == "192.0.2.78" => Ok(()),
        ref other => Err(format!("{other:?}")),
    });
    // What we tell is what upstream's hosts read.
    let (_, value, _) = world.leases().into_iter().find(|(_, value, _)| value.contains("192.0.2.1\"")).unwrap();
    let own = rtnl.link("flannel.1").unwrap().unwrap();
    let told = format!(r#""VNI":1,"VtepMAC":"{}""#, own.mac.unwrap());
    assert!(value.contains(&told) && value.contains(r#""BackendType":"vxlan""#), "{value}");
}

/// As by PPP: everybody looked like a neighbour on that link, and routes of the tunnel were put there.
#[test]
fn a_default_route_without_a_router_takes_nothing_from_the_tunnel() {
    let six = r#""EnableIPv6": true, "IPv6Network": "fd00:5::/48""#;
    let world = World::new(&conf(VXLAN).replacen('{', &format!("{{{six}, "), 1));
    let mut hosts = [world.bare_host(1), world.bare_host(2)];
    for host in &mut hosts {
        let mut rtnl = host.rtnl();
        let eth0 = rtnl.link("eth0").unwrap().unwrap().index;
        [false, true].iter().for_each(|v6| rtnl.put_route(&Route::link(Prefix::everything(*v6), eth0)).unwrap());
        host.start();
        host.pod();
    }
    let [one, two] = hosts;
    eventually(|| one.asks(&two, 1400));
    eventually(|| one.asks6(&two, true, 1400));
    assert_eq!(one.route(two.subnet()).unwrap().1, "flannel.1");
}

#[test]
fn neighbours_are_reached_without_a_tunnel_when_that_is_asked_for() {
    let world = World::new(&conf(r#"{"Type": "vxlan", "DirectRouting": true}"#));
    let (one, two) = (world.host(1), world.host(2));
    eventually(|| one.asks(&two, 100));
    assert_eq!(one.route(two.subnet()).unwrap(), (Some(two.address.into()), "eth0".to_owned()));
    assert_eq!(entries(&mut one.rtnl()), []);
}

#[test]
fn garbage_on_the_udp_port_goes_nowhere() {
    let world = World::new(&conf(UDP));
    let (one, two) = (world.host(1), world.host(2));
    eventually(|| one.asks(&two, 100));
    let attacker = one.socket(false);
    let to = SocketAddr::from((two.address, 8285));
    for length in [0, 1, 19, 20, 40, 1400] {
        for byte in [0, 0x45, 0x4f, 0x60, 0xff] {
            attacker.send_to(&vec![byte; length], to).unwrap();
        }
    }
    // A packet for the host itself, from anybody: only pods are behind this port.
    let host = two.ns.run(|| UdpSocket::bind((two.address, 9)).unwrap()).unwrap();
    host.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let mut packet = vec![0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 5, 77, 7];
    packet.extend(two.address.octets());
    packet.extend([0, 9, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4]);
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    attacker.send_to(&packet, to).unwrap();
    assert!(host.recv(&mut [0; 64]).is_err(), "it came through");
    eventually(|| one.asks(&two, 100));
}
