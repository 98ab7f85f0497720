//! Links without addresses of their own: the ends find each other by Router Advertisements, or by who connects, and routes
//! of IPv4 go by routers of IPv6.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bgp::router;
use bgpd::control::view::NeighborView;
use bgpd::control::{Command as Question, Which};
use meta::Prefix;

use crate::bird::Bird;
use crate::frr::Frr;
use crate::lab::{Host, Lab, eventually, v4, v6};
use crate::ours::Ours;
use crate::speaker::{Conf, Peer, Speaker, own4, own6};

/// What the kernel makes of advertisements, and whether it forwards: an administrator's.
const SETTINGS: [&str; 2] = ["net.ipv6.conf.eth0.accept_ra", "net.ipv6.conf.eth0.forwarding"];

/// A host whose link has the address that each link of IPv6 has, and no other.
fn bare(lab: &Lab, n: u8) -> Host {
    let host = lab.host(n);
    let mut rtnl = host.rtnl();
    let [lo, eth0] = ["lo", "eth0"].map(|name| rtnl.link(name).unwrap().unwrap().index);
    rtnl.delete_address(eth0, Prefix::new(v4(n), 24)).unwrap();
    rtnl.delete_address(eth0, Prefix::new(v6(n), 64)).unwrap();
    rtnl.put_address(lo, Prefix::new(inside(n), 32)).unwrap();
    host
}

/// An address of a host that is told to others.
fn inside(n: u8) -> IpAddr {
    Ipv4Addr::new(10, n, 0, 1).into()
}

fn conf(n: u8, other: u8) -> Conf {
    let peer = Peer { unnumbered: true, ..Peer::new(other, 64500 + u32::from(other)) };
    Conf { kernel: true, ..Conf::new(64500 + u32::from(n), vec![peer]).own(n) }
}

/// The one neighbour, once there is a session with him.
fn up(ours: &Ours) -> NeighborView {
    eventually("a session", || {
        let view = ours.neighbors()?.pop().context("a neighbour")?;
        ensure!(view.state == "Established", "{} {:?}", view.state, view.last_error);
        Ok(view)
    })
}

/// A route of the kernel's is by the other's address on the link.
fn goes_by(host: &Host, dst: &str, gateway: IpAddr) {
    let dst: Prefix = dst.parse().unwrap();
    eventually("it is in the kernel", || {
        let routes = host.rtnl().routes_of(Some(254), |route| (route.dst == dst).then_some(route))?;
        ensure!(routes.len() == 1 && routes[0].gateway() == Some(gateway), "{dst}: {routes:?}");
        Ok(())
    });
}

/// A packet of IPv4 comes over.
fn reaches(from: &Host, to: &Host) {
    let bind = |host: &Host| host.ns.run(|| UdpSocket::bind((inside(host.n), 0))).unwrap().unwrap();
    let (here, there) = (bind(from), bind(to));
    there.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    eventually("a packet comes over", || {
        here.send_to(b"abc", there.local_addr()?)?;
        let (length, sender) = there.recv_from(&mut [0; 16])?;
        ensure!((length, sender) == (3, here.local_addr()?), "{length} bytes of {sender}");
        Ok(())
    });
}

fn settings(host: &Host) -> Vec<String> {
    host.ns.run(|| SETTINGS.map(|name| linux::sysctl::get(name).unwrap()).to_vec()).unwrap()
}

#[test]
fn frr_and_ours_find_each_other_and_packets_of_ipv4_go_by_ipv6() {
    let lab = Lab::new();
    let (one, two, three) = (bare(&lab, 1), bare(&lab, 2), bare(&lab, 3));
    let before = settings(&one);
    let ours = Ours::start(&one, &conf(1, 2));
    let view = eventually("it is said what is waited for", || {
        let view = ours.neighbors()?.pop().context("a neighbour")?;
        ensure!(view.last_error.as_ref().is_some_and(|why| why.contains("nobody has been found")), "{view:?}");
        Ok(view)
    });
    assert_eq!((view.state.as_str(), view.interface.as_deref()), ("Idle", Some("eth0")));
    let mut frr = Frr::start(&two, &conf(2, 1));
    let view = up(&ours);
    assert_eq!((view.address, view.interface.as_deref()), (two.link_local(), Some("eth0")));
    let of = |who: &str| ours.ask(&Question::Routes(Which { from: Some(who.parse().unwrap()), ..Which::default() }));
    ours.learns(&[&own4(2), &own6(2)]);
    let by_address = of(&format!("{}%eth0", two.link_local())).unwrap();
    assert!(by_address.len() >= 2, "{by_address:?}");
    assert_eq!(of("eth0").unwrap().len(), by_address.len(), "by the name that the file has");
    assert!(of("eth1").unwrap_err().to_string().contains("there is no neighbor eth1"));
    frr.learns(&[&own4(1), &own6(1)]);
    goes_by(&one, &own4(2), two.link_local());
    goes_by(&two, &own4(1), one.link_local());
    reaches(&one, &two);
    reaches(&two, &one);
    assert_eq!(settings(&one), before, "the kernel's settings are the administrator's");

    // Somebody else on the link who says that he is a router, also: no session ends for him.
    let _ = advertise(&three).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let still = up(&ours);
    assert_eq!((still.address, still.sessions), (two.link_local(), 1));

    // The router is exchanged for another.
    frr.kill();
    drop(frr);
    let other: IpAddr = "fe80::99".parse().unwrap();
    let mut rtnl = two.rtnl();
    let eth0 = rtnl.link("eth0").unwrap().unwrap().index;
    rtnl.delete_address(eth0, Prefix::new(two.link_local(), 64)).unwrap();
    rtnl.put_address(eth0, Prefix::new(other, 64)).unwrap();
    let _frr = Frr::start(&two, &conf(2, 1));
    eventually("a session with the other", || {
        let view = up(&ours);
        ensure!(view.address == other, "{}", view.address);
        Ok(())
    });
    goes_by(&one, &own4(2), other);
}

/// Only who is next door is found: what a router has sent on says nothing.
#[test]
fn an_advertisement_that_has_crossed_a_router_finds_nobody() {
    let lab = Lab::new();
    let (one, two) = (bare(&lab, 1), bare(&lab, 2));
    let ours = Ours::start(&one, &conf(1, 2));
    let address = || -> Result<IpAddr> { Ok(ours.neighbors()?.pop().context("a neighbour")?.address) };
    eventually("it runs", || address().map(drop));
    for _ in 0..10 {
        advertise_from(&two, 254).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(address().unwrap().is_unspecified());
    }
    eventually("he is found", || {
        advertise(&two)?;
        ensure!(address()? == two.link_local());
        Ok(())
    });
}

/// Says once that a router is here.
fn advertise(host: &Host) -> Result<usize> {
    advertise_from(host, 255)
}

/// The same, as if it came from further away.
fn advertise_from(host: &Host, hops: u32) -> Result<usize> {
    let socket = host.ns.run(|| linux::hops::icmp6("eth0", router::ALL_ROUTERS, &router::TYPES))??;
    rustix::net::sockopt::set_ipv6_multicast_hops(&socket, hops)?;
    let index = host.rtnl().link("eth0")?.context("eth0")?.index;
    let to = SocketAddr::from(SocketAddrV6::new(router::ALL_NODES, 0, 0, index));
    Ok(socket.send_to(&router::advertisement(router::LIFETIME), to)?)
}

#[test]
fn two_of_ours_find_each_other() {
    let lab = Lab::new();
    let (one, two) = (bare(&lab, 1), bare(&lab, 2));
    let (first, second) = (Ours::start(&one, &conf(1, 2)), Ours::start(&two, &conf(2, 1)));
    assert_eq!(up(&first).address, two.link_local());
    assert_eq!(up(&second).address, one.link_local());
    goes_by(&one, &own4(2), two.link_local());
    goes_by(&one, &own6(2), two.link_local());
    reaches(&one, &two);
}

/// With a password: the key is asked for as soon as it is known of whom.
#[test]
fn an_unnumbered_frr_signs() {
    let lab = Lab::new();
    let (one, two) = (bare(&lab, 1), bare(&lab, 2));
    let signed = |n: u8, other: u8| {
        let mut conf = conf(n, other);
        conf.peers[0].password = Some("secret".to_owned());
        conf
    };
    let (ours, frr) = (Ours::start(&one, &signed(1, 2)), Frr::start(&two, &signed(2, 1)));
    up(&ours);
    frr.learns(&[&own4(1)]);
}

fn bird(host: &Host, neighbor: &str, more: &str) -> Bird {
    let text = format!(
        "log stderr all;\nrouter id 10.0.0.2;\nprotocol device {{ scan time 1; }}\n{more}\n\
         protocol static {{ ipv4; route 10.2.0.0/24 blackhole; }}\n\
         protocol bgp p0 {{\n  local as 64502;\n  neighbor {neighbor};\n  interface \"eth0\";\n  \
         connect delay time 1; connect retry time 2; error wait time 1, 2;\n  \
         ipv4 {{ extended next hop on; import all; export where source = RTS_STATIC; }};\n}}\n"
    );
    Bird::with(host, &text)
}

/// BIRD says where it is by a protocol of its own, and takes who connects.
#[test]
fn bird_advertises_itself_and_is_connected_to() {
    let lab = Lab::new();
    let (one, two) = (bare(&lab, 1), bare(&lab, 2));
    let radv = "protocol radv { interface \"eth0\" { max ra interval 5; }; }";
    let bird = bird(&two, "range fe80::/10 as 64501", radv);
    let ours = Ours::start(&one, &conf(1, 2));
    assert_eq!(up(&ours).address, two.link_local());
    ours.learns(&[&own4(2)]);
    bird.learns(&[&own4(1)]);
    goes_by(&one, &own4(2), two.link_local());
}

/// BIRD knows where ours is, and says nothing of itself before it connects.
#[test]
fn bird_connects_and_is_found_by_that() {
    let lab = Lab::new();
    let (one, two) = (bare(&lab, 1), bare(&lab, 2));
    let bird = bird(&two, &format!("{} as 64501", one.link_local()), "");
    let ours = Ours::start(&one, &conf(1, 2));
    let view = up(&ours);
    assert_eq!((view.address, view.interface.as_deref()), (two.link_local(), Some("eth0")));
    bird.learns(&[&own4(1)]);
}
