//! The harness itself, tried with speakers of others among themselves: what fails here is not ours.

use std::net::Ipv4Addr;

use crate::lab::{Lab, v4, v6};
use crate::speaker::{Conf, Kind, Peer, Speaker, own4, own6};

/// Sessions of both families with a host.
pub fn peers(host: u8, number: u32) -> Vec<Peer> {
    vec![Peer::new(host, number), Peer::new(host, number).ipv6()]
}

/// A speaker has sessions with the other one, whose AS is 64500 and its host, and its routes with all that it said of them.
pub fn check(speaker: &dyn Speaker, other: u8) {
    speaker.meets(&[v4(other), v6(other)]);
    let table = speaker.learns(&[&own4(other), &own6(other)]);
    let number = 64500 + u32::from(other);
    for (prefix, next_hop) in [(own4(other), v4(other)), (own6(other), v6(other))] {
        let paths = &table[&prefix.parse().unwrap()];
        assert_eq!(paths.len(), 1, "{}: {prefix} {paths:?}", speaker.name());
        assert_eq!(paths[0].as_path, [number], "{}: {prefix}", speaker.name());
        assert_eq!(paths[0].next_hop, Some(next_hop), "{}: {prefix}", speaker.name());
        assert_eq!(paths[0].communities, [format!("{number}:{other}")], "{}: {prefix}", speaker.name());
    }
}

/// Two speakers of two ASes.
fn pair(first: Kind, second: Kind) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let here = first.start(&one, &Conf::new(64501, peers(2, 64502)).own(1));
    let there = second.start(&two, &Conf::new(64502, peers(1, 64501)).own(2));
    check(&*here, 2);
    check(&*there, 1);
}

#[test]
fn bird_and_frr() {
    pair(Kind::Bird, Kind::Frr);
}

#[test]
fn bird_and_gobgp() {
    pair(Kind::Bird, Kind::Gobgp);
}

#[test]
fn frr_and_exabgp() {
    pair(Kind::Frr, Kind::Exabgp);
}

/// A reflector of BIRD's between two clients.
#[test]
fn a_reflector_between_clients() {
    let lab = Lab::new();
    let (one, two, three) = (lab.host(1), lab.host(2), lab.host(3));
    let client = |host: u8| Peer { client: true, ..Peer::new(host, 64500) };
    let cluster = Ipv4Addr::new(9, 9, 9, 9);
    let reflector = Conf { cluster: Some(cluster), ..Conf::new(64500, vec![client(2), client(3)]) };
    let _reflector = Kind::Bird.start(&one, &reflector);
    let first = Kind::Frr.start(&two, &Conf::new(64500, vec![Peer::new(1, 64500)]).own(2));
    let second = Kind::Gobgp.start(&three, &Conf::new(64500, vec![Peer::new(1, 64500)]).own(3));
    for (speaker, other) in [(&first, 3_u8), (&second, 2)] {
        let path = speaker.has(&own4(other), "by the reflector", &|_| true);
        assert_eq!((path.originator, path.clusters), (Some(Ipv4Addr::new(10, 0, 0, other)), vec![cluster]));
        assert_eq!(path.next_hop, Some(v4(other)));
    }
}
