//! Route reflection: ours between clients of others, ours as another's client, and both ways at once.

use std::net::Ipv4Addr;

use crate::lab::{Lab, v4, v6};
use crate::speaker::{Conf, Kind, Path, Peer, Speaker, own4, own6};

const NUMBER: u32 = 64500;
const CLUSTER: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

fn clients(hosts: &[u8]) -> Vec<Peer> {
    let client = |host: u8| Peer { client: true, ..Peer::new(host, NUMBER) };
    hosts.iter().flat_map(|host| [client(*host), client(*host).ipv6()]).collect()
}

fn reflector(hosts: &[u8]) -> Conf {
    Conf { cluster: Some(CLUSTER), ..Conf::new(NUMBER, clients(hosts)) }
}

fn client(of: u8, n: u8) -> Conf {
    Conf::new(NUMBER, vec![Peer::new(of, NUMBER), Peer::new(of, NUMBER).ipv6()]).own(n)
}

fn id(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

/// A client has what another one has told, with what the reflector put there.
fn check(speaker: &dyn Speaker, from: u8) {
    for (prefix, next_hop) in [(own4(from), v4(from)), (own6(from), v6(from))] {
        let reflected = |path: &Path| path.originator.is_some();
        let path = speaker.has(&prefix, "by a reflector", &reflected);
        assert_eq!((path.originator, &path.clusters[..]), (Some(id(from)), &[CLUSTER][..]), "{}", speaker.name());
        assert_eq!((path.next_hop, path.as_path.len()), (Some(next_hop), 0), "{}", speaker.name());
    }
}

#[test]
fn ours_between_clients_of_all_kinds() {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4, 5].map(|n| lab.host(n));
    let kinds = [Kind::Bird, Kind::Frr, Kind::Gobgp, Kind::Exabgp];
    let ours = Kind::Ours.start(&hosts[0], &reflector(&[2, 3, 4, 5]));
    let mut all: Vec<_> =
        (2..6).zip(kinds).map(|(n, kind)| kind.start(&hosts[usize::from(n) - 1], &client(1, n))).collect();
    for (at, speaker) in all.iter().enumerate() {
        let own = at as u8 + 2;
        (2..6).filter(|n| *n != own).for_each(|from| check(&**speaker, from));
        let own = own4(own).parse().unwrap();
        let back = speaker.routes().unwrap().get(&own).map_or(0, Vec::len);
        assert!(back <= 1, "{} hears its own route", speaker.name());
    }
    // What one of them tells no more, nobody has.
    let mut gone = all.remove(0);
    gone.kill();
    drop(ours);
}

/// Ours is a client of theirs, and another of ours beside.
fn of(kind: Kind) {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let _reflector = kind.start(&hosts[0], &reflector(&[2, 3]));
    let first = Kind::Ours.start(&hosts[1], &client(1, 2));
    let second = Kind::Ours.start(&hosts[2], &client(1, 3));
    check(&*first, 3);
    check(&*second, 2);
}

#[test]
fn of_bird() {
    of(Kind::Bird);
}

#[test]
fn of_frr() {
    of(Kind::Frr);
}

#[test]
fn of_gobgp() {
    of(Kind::Gobgp);
}

/// Two reflectors of one cluster with the same clients: each client has each route twice, and ours believes nothing that has
/// been through its cluster already. (BIRD looks for its cluster only in what clients say.)
#[test]
fn two_reflectors_ours_and_birds() {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    let plain = |host: u8| Peer::new(host, NUMBER);
    let with = |other: u8| {
        let mut conf = reflector(&[3, 4]);
        conf.peers.push(plain(other));
        conf
    };
    let ours = Kind::Ours.start(&hosts[0], &with(2));
    let _theirs = Kind::Bird.start(&hosts[1], &with(1));
    let two = |n: u8| Conf::new(NUMBER, vec![plain(1), plain(2)]).own(n);
    let first = Kind::Frr.start(&hosts[2], &two(3));
    let second = Kind::Bird.start(&hosts[3], &two(4));
    for (speaker, from) in [(&first, 4), (&second, 3)] {
        crate::lab::eventually("two paths", || {
            let paths = speaker.routes()?.remove(&own4(from).parse()?).unwrap_or_default();
            anyhow::ensure!(paths.len() == 2, "{paths:?}");
            Ok(())
        });
    }
    let paths = ours.learns(&[&own4(3), &own4(4)]);
    assert_eq!([3, 4].map(|n| paths[&own4(n).parse().unwrap()].len()), [1, 1]);
}
