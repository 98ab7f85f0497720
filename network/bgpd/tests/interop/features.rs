//! What both ends must have agreed on: several paths, asking again, long messages.

use anyhow::ensure;
use meta::Prefix;

use crate::bird::Bird;
use crate::frr::Frr;
use crate::lab::{Lab, eventually, v4, v6};
use crate::ours::Ours;
use crate::speaker::{Conf, Kind, Peer, Speaker};

const SHARED: &str = "10.99.0.0/24";

fn several(host: u8, number: u32) -> Peer {
    Peer { add_path: true, ..Peer::new(host, number) }
}

fn paths(speaker: &dyn Speaker, number: usize) {
    eventually(&format!("{} has {number} paths", speaker.name()), || {
        let paths = speaker.routes()?.remove(&SHARED.parse::<Prefix>()?).unwrap_or_default();
        ensure!(paths.len() == number, "{paths:?}");
        let mut hops: Vec<_> = paths.iter().map(|path| path.next_hop).collect();
        hops.sort_unstable();
        hops.dedup();
        ensure!(hops.len() == number, "{hops:?}");
        Ok(())
    });
}

/// Ours in the middle has two paths to a prefix and tells both; when one goes, one is left.
fn ours_tells_several(other: Kind) {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    // Of one AS, so that next hops stay as they are.
    let number = 64500;
    let mut peers = vec![Peer { client: true, graceful: false, hold: 6, ..Peer::new(2, number) }];
    peers.push(Peer { host: 3, ..peers[0].clone() });
    peers.push(Peer { client: true, ..several(4, number) });
    let ours = Ours::start(&hosts[0], &Conf::new(number, peers));
    let source = || Conf::new(number, vec![Peer { graceful: false, hold: 6, ..Peer::new(1, number) }]);
    let _first = Kind::Bird.start(&hosts[1], &source().network(SHARED, &["2:2"]));
    let second = Kind::Bird.start(&hosts[2], &source().network(SHARED, &["3:3"]));
    let reader = other.start(&hosts[3], &Conf::new(number, vec![several(1, number)]));
    paths(&ours, 2);
    paths(&*reader, 2);
    drop(second);
    paths(&*reader, 1);
}

#[test]
fn ours_tells_bird_several_paths() {
    ours_tells_several(Kind::Bird);
}

#[test]
fn ours_tells_frr_several_paths() {
    ours_tells_several(Kind::Frr);
}

#[test]
fn ours_tells_gobgp_several_paths() {
    ours_tells_several(Kind::Gobgp);
}

/// They are in the middle, and ours has both.
fn ours_hears_several(other: Kind) {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    let number = 64500;
    let client = |host: u8| Peer { client: true, ..Peer::new(host, number) };
    let peers = vec![client(2), client(3), Peer { client: true, ..several(4, number) }];
    let _middle = other.start(&hosts[0], &Conf::new(number, peers));
    let source = || Conf::new(number, vec![Peer::new(1, number)]);
    let _first = Kind::Bird.start(&hosts[1], &source().network(SHARED, &["2:2"]));
    let _second = Kind::Ours.start(&hosts[2], &source().network(SHARED, &["3:3"]));
    let ours = Ours::start(&hosts[3], &Conf::new(number, vec![several(1, number)]));
    paths(&ours, 2);
}

#[test]
fn ours_hears_several_paths_of_bird() {
    ours_hears_several(Kind::Bird);
}

#[test]
fn ours_hears_several_paths_of_frr() {
    ours_hears_several(Kind::Frr);
}

#[test]
fn ours_hears_several_paths_of_gobgp() {
    ours_hears_several(Kind::Gobgp);
}

/// They ask for all again, and ours tells it. (GoBGP never asks: what it has heard it keeps whole.)
#[test]
fn routes_are_asked_for_again() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let peers = vec![Peer::new(2, 64502), Peer::new(3, 64503)];
    let ours = Ours::start(&hosts[0], &Conf::new(64501, peers).own(1));
    let bird = Bird::start(&hosts[1], &Conf::new(64502, vec![Peer::new(1, 64501)]).own(2));
    let frr = Frr::start(&hosts[2], &Conf::new(64503, vec![Peer::new(1, 64501)]).own(3));
    bird.learns(&["10.1.0.0/24"]);
    frr.learns(&["10.1.0.0/24"]);
    let asked = |host: u8| -> anyhow::Result<(u64, u64)> {
        let view = ours.neighbor(v4(host))?;
        Ok((view.messages_received.route_refresh, view.messages_sent.update))
    };
    for (host, ask) in [(2_u8, 0), (3, 1)] {
        let before = asked(host).unwrap();
        match ask {
            0 => drop(bird.ask("reload in p0").unwrap()),
            _ => drop(frr.ask("clear bgp 10.0.0.1 soft in").unwrap()),
        }
        eventually("asked, and told again", || {
            let now = asked(host)?;
            ensure!(now.0 > before.0 && now.1 > before.1, "{before:?} {now:?}");
            Ok(())
        });
    }
    bird.learns(&["10.1.0.0/24", "10.3.0.0/24"]);
    frr.learns(&["10.1.0.0/24", "10.2.0.0/24"]);
    assert_eq!(ours.sessions().unwrap(), [v4(2), v4(3)]);
}

/// A route with more communities than a message of 4096 bytes has room for.
#[test]
fn messages_longer_than_4096_bytes() {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let many: Vec<String> = (0..1500).map(|n| format!("7:{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let ours = Ours::start(&one, &Conf::new(64501, vec![Peer::new(2, 64502)]).network("10.1.0.0/24", &many));
    let bird = Bird::start(&two, &Conf::new(64502, vec![Peer::new(1, 64501)]).network("10.2.0.0/24", &many));
    for (speaker, prefix) in [(&ours as &dyn Speaker, "10.2.0.0/24"), (&bird, "10.1.0.0/24")] {
        let path = speaker.has(prefix, "with all communities", &|_| true);
        assert_eq!(path.communities.len(), 1500, "{}", speaker.name());
    }
}

/// On a link without addresses of IPv4 its routes have next hops of IPv6, also in the kernel.
fn ipv4_by_routers_of_ipv6(other: Kind) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    for host in [&one, &two] {
        let mut rtnl = host.rtnl();
        let eth0 = rtnl.link("eth0").unwrap().unwrap().index;
        rtnl.delete_address(eth0, Prefix::new(v4(host.n), 24)).unwrap();
    }
    let peer = |host: u8, number: u32| vec![Peer { ipv4_routes: true, ..Peer::new(host, number).ipv6() }];
    let conf = Conf { kernel: true, ..Conf::new(64501, peer(2, 64502)).network("10.1.0.0/24", &[]) };
    let ours = Ours::start(&one, &conf);
    let theirs = other.start(&two, &Conf::new(64502, peer(1, 64501)).network("10.2.0.0/24", &[]));
    let path = ours.has("10.2.0.0/24", "by IPv6", &|path| path.next_hop == Some(v6(2)));
    assert_eq!(path.as_path, [64502]);
    theirs.has("10.1.0.0/24", "by IPv6", &|path| path.next_hop.is_some_and(|hop| hop.is_ipv6()));
    let dst: Prefix = "10.2.0.0/24".parse().unwrap();
    eventually("it is in the kernel", || {
        let routes = one.rtnl().routes_of(Some(254), |route| (route.dst == dst).then_some(route))?;
        ensure!(routes.len() == 1 && routes[0].gateway().is_some_and(|hop| hop.is_ipv6()), "{routes:?}");
        Ok(())
    });
}

#[test]
fn ipv4_by_routers_of_ipv6_with_bird() {
    ipv4_by_routers_of_ipv6(Kind::Bird);
}

#[test]
fn ipv4_by_routers_of_ipv6_with_frr() {
    ipv4_by_routers_of_ipv6(Kind::Frr);
}
