//! Reflectors that are turned off and on while packets flow between their clients, and reflectors above reflectors.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::ensure;
use bgpd::control::Command as Question;
use serde_json::{Value, json};

use crate::lab::{Host, Lab, eventually, v4};
use crate::ours::{Ours, configuration};
use crate::speaker::{Conf, Kind, Path, Peer, Speaker, own4};
use crate::traffic::{Traffic, in_kernel};

const NUMBER: u32 = 64500;

fn id(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(n, n, n, n)
}

fn plain(host: u8) -> Peer {
    Peer::new(host, NUMBER)
}

fn client(host: u8) -> Peer {
    Peer { client: true, ..plain(host) }
}

fn reflector(cluster: Ipv4Addr, peers: Vec<Peer>) -> Conf {
    Conf { cluster: Some(cluster), ..Conf::new(NUMBER, peers) }
}

/// How many paths a client has to what another one originates.
fn paths(speaker: &dyn Speaker, from: u8, number: usize) {
    eventually(&format!("{} has {number} paths", speaker.name()), || {
        let paths = speaker.routes()?.remove(&own4(from).parse()?).unwrap_or_default();
        ensure!(paths.len() == number, "{paths:?}");
        Ok(())
    });
}

/// Nothing was lost of a good number of packets.
fn none_lost(traffic: Traffic) {
    let (lost, sent) = traffic.end();
    assert!(sent > 100, "{sent}");
    assert_eq!(lost, 0, "packets of {sent}");
}

/// The only reflector is killed and started again with `--keep-routes`: its clients keep what it told (RFC 4724), it tells
/// nothing before it has heard all of them, and packets go on between them.
#[test]
fn the_only_reflector_is_killed_and_back() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let mut ours = Ours::start(&hosts[0], &reflector(id(9), vec![client(2), client(3)]));
    ours.keep_routes();
    // To BIRD a connection that comes beside one of its own is one more restart: it waits.
    let own = |n: u8| {
        let peer = Peer { passive: n == 3, ..plain(1) };
        Conf { kernel: true, ..Conf::new(NUMBER, vec![peer]).network(&own4(n), &["1:1"]) }
    };
    let first = Kind::Ours.start(&hosts[1], &own(2));
    let second = Kind::Bird.start(&hosts[2], &own(3));
    in_kernel(&hosts[1], &own4(3), 3);
    in_kernel(&hosts[2], &own4(2), 2);
    let traffic = Traffic::between(&hosts[1], &hosts[2]);
    for _ in 0..2 {
        ours.kill();
        eventually("its clients have noticed", || {
            ensure!(first.sessions()?.is_empty() && second.sessions()?.is_empty());
            Ok(())
        });
        std::thread::sleep(Duration::from_millis(500));
        ours.again();
        eventually("it is back, and has told all", || {
            let summary = &ours.ask(&Question::Summary)?[0];
            ensure!(ours.sessions()?.len() == 2 && summary["waitingForNeighbors"] == false, "{summary}");
            Ok(())
        });
        first.meets(&[v4(1)]);
        second.meets(&[v4(1)]);
        std::thread::sleep(Duration::from_secs(1));
    }
    in_kernel(&hosts[1], &own4(3), 3);
    in_kernel(&hosts[2], &own4(2), 2);
    none_lost(traffic);
}

/// Ours of two reflectors, and what a reload makes of it.
struct First {
    ours: Ours,
    words: Value,
}

impl First {
    fn start(host: &Host, conf: &Conf) -> First {
        let words = configuration(host, conf);
        First { ours: Ours::with(host, &words, true), words }
    }

    /// Says something else of each neighbour.
    fn reload(&mut self, field: &str, value: &Value) {
        for neighbor in self.words["neighbors"].as_array_mut().unwrap() {
            neighbor[field] = value.clone();
        }
        self.ours.configure(&self.words);
        self.ours.ask(&Question::Reload).unwrap();
    }
}

/// Of two reflectors one is turned off, reflects no more, or is killed, and the other then, too: clients who keep nothing of one
/// who is gone lose no packet.
#[test]
fn one_of_two_reflectors_is_enough() {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    let gone = |peer: Peer| Peer { graceful: false, ..peer };
    let clients = || vec![gone(client(3)), gone(client(4))];
    let mut ours = First::start(&hosts[0], &reflector(id(9), clients()));
    let mut theirs = Kind::Bird.start(&hosts[1], &reflector(id(9), clients()));
    let own = |n: u8| {
        let peers = vec![gone(plain(1)), gone(plain(2))];
        Conf { kernel: true, ..Conf::new(NUMBER, peers).network(&own4(n), &["1:1"]) }
    };
    let first = Kind::Frr.start(&hosts[2], &own(3));
    let second = Kind::Ours.start(&hosts[3], &own(4));
    let both_have = |number: usize| {
        paths(&*first, 4, number);
        paths(&*second, 3, number);
    };
    both_have(2);
    in_kernel(&hosts[2], &own4(4), 4);
    in_kernel(&hosts[3], &own4(3), 3);
    let traffic = Traffic::between(&hosts[2], &hosts[3]);
    // They are no clients any more, and are again; their sessions go on. (Before that two connections may have met.)
    let sessions = |first: &First| [3, 4].map(|n| first.ours.neighbor(v4(n)).unwrap().sessions);
    let before = sessions(&ours);
    ours.reload("route-reflector-client", &json!(false));
    both_have(1);
    ours.reload("route-reflector-client", &json!(true));
    both_have(2);
    assert_eq!(sessions(&ours), before);
    // Turned off, and on.
    ours.reload("enabled", &json!(false));
    both_have(1);
    ours.reload("enabled", &json!(true));
    both_have(2);
    // Killed, and started.
    ours.ours.kill();
    both_have(1);
    ours.ours.again();
    both_have(2);
    theirs.kill();
    both_have(1);
    in_kernel(&hosts[2], &own4(4), 4);
    in_kernel(&hosts[3], &own4(3), 3);
    none_lost(traffic);
}

/// Client, ours, another's reflector above, client: a route has been through both clusters, and one that comes back to a
/// cluster where it was already is refused.
fn below(other: Kind) {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4, 5].map(|n| lab.host(n));
    let _ours = Ours::start(&hosts[1], &reflector(id(2), vec![client(1), plain(3)]));
    let _above = other.start(&hosts[2], &reflector(id(3), vec![client(2), client(4), client(5)]));
    let own = |of: u8, n: u8| Conf::new(NUMBER, vec![plain(of)]).network(&own4(n), &["1:1"]);
    let first = Kind::Bird.start(&hosts[0], &own(2, 1));
    let second = Kind::Ours.start(&hosts[3], &own(3, 4));
    // A second reflector of the lower cluster, which doesn't serve this client.
    let beside = Ours::start(&hosts[4], &reflector(id(2), vec![plain(3)]));
    let reflected = |path: &Path| path.originator.is_some();
    let path = second.has(&own4(1), "by two reflectors", &reflected);
    let originator = |n: u8| Some(Ipv4Addr::new(10, 0, 0, n));
    assert_eq!((path.originator, path.clusters, path.next_hop), (originator(1), vec![id(3), id(2)], Some(v4(1))));
    let path = first.has(&own4(4), "by two reflectors", &reflected);
    assert_eq!((path.originator, path.clusters, path.next_hop), (originator(4), vec![id(2), id(3)], Some(v4(4))));
    beside.learns(&[&own4(4)]);
    eventually("the other reflector of the cluster refuses it", || {
        let views = beside.route_views()?;
        let why: Vec<_> =
            views.iter().filter(|view| view.prefix.to_string() == own4(1)).flat_map(|view| &view.paths).collect();
        ensure!(
            why.len() == 1 && why[0].refused && why[0].why.contains("our cluster is in the cluster list"),
            "{why:?}"
        );
        Ok(())
    });
}

#[test]
fn ours_below_birds() {
    below(Kind::Bird);
}

#[test]
fn ours_below_frrs() {
    below(Kind::Frr);
}
