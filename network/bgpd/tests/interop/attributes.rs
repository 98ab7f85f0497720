//! What is said of routes beside their paths, and what is done to paths between ASes, with BIRD and FRR on both sides of ours.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::bird::Bird;
use crate::frr::Frr;
use crate::lab::{Host, Lab, eventually, v4, v6};
use crate::ours::{Ours, configuration};
use crate::speaker::{Conf, Kind, Peer, Speaker, own4, own6};

/// Ours on the first host, with a configuration that is changed for each of its neighbours.
fn ours(host: &Host, conf: &Conf, changes: &[Value]) -> Ours {
    let mut words = configuration(host, conf);
    for (neighbor, change) in words["neighbors"].as_array_mut().unwrap().iter_mut().zip(changes) {
        neighbor.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    }
    Ours::with(host, &words, false)
}

/// The AS path by which somebody has a route.
fn path(speaker: &dyn Speaker, prefix: &str, wanted: &[u32]) {
    speaker.has(prefix, &format!("by {wanted:?}"), &|path| path.as_path == wanted);
}

/// Large and extended communities go from BIRD through ours to FRR and back, and ours adds large ones of its own.
#[test]
fn communities_of_all_kinds() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let peers = vec![Peer::new(2, 64502), Peer::new(3, 64503)];
    let own = Conf::new(64501, peers).network("10.1.0.0/24", &["1:1", "64501:4200000001:3"]);
    let ours = Ours::start(&hosts[0], &own);
    let all = |n: u8| {
        let said = [format!("{n}:{n}"), format!("645{n:02}:4000000000:{n}"), format!("rt:645{n:02}:70000")];
        let words: Vec<&str> = said.iter().map(String::as_str).collect();
        let conf = Conf::new(64500 + u32::from(n), vec![Peer::new(1, 64501)]).network(&own4(n), &words);
        (conf, said.to_vec())
    };
    let ((of_bird, birds), (of_frr, frrs)) = (all(2), all(3));
    let bird = Kind::Bird.start(&hosts[1], &of_bird);
    let frr = Kind::Frr.start(&hosts[2], &of_frr);
    let own = vec!["1:1".to_owned(), "64501:4200000001:3".to_owned()];
    let wanted: [(&dyn Speaker, u8, &Vec<String>); 6] = [
        (&ours, 2, &birds),
        (&ours, 3, &frrs),
        (&*frr, 2, &birds),
        (&*bird, 3, &frrs),
        (&*frr, 1, &own),
        (&*bird, 1, &own),
    ];
    for (speaker, from, communities) in wanted {
        let mut communities = communities.clone();
        communities.sort_unstable();
        speaker.has(&own4(from), &format!("with {communities:?}"), &|path| path.communities == communities);
    }
}

/// BIRD of two octets between two of ours: of a path with a number that needs four all is told beyond it (RFC 6793).
#[test]
fn a_speaker_of_two_octets_between() {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    let long = 4_200_000_001;
    let two = |host: u8, number: u32| Peer { extra: "enable as4 off;", ..Peer::new(host, number) };
    let _source = Frr::start(&hosts[0], &Conf::new(long, vec![Peer::new(2, 64502)]).network("10.1.0.0/24", &[]));
    let _ours = Ours::start(&hosts[1], &Conf::new(64502, vec![Peer::new(1, long), Peer::new(3, 64503)]));
    let bird = Bird::start(&hosts[2], &Conf::new(64503, vec![two(2, 64502), two(4, 64504)]));
    let beyond = Ours::start(&hosts[3], &Conf::new(64504, vec![Peer::new(3, 64503)]));
    path(&beyond, "10.1.0.0/24", &[64503, 64502, long]);
    path(&bird, "10.1.0.0/24", &[64502, long]);
    let said = bird.ask("show protocols all p0").unwrap();
    let (local, _) = said.split_once("Neighbor capabilities").unwrap();
    assert!(!local.contains("4-octet"), "{said}");
}

/// Routes of IPv6 over a session of IPv4, with BIRD and FRR: a next hop of IPv6 is told where the transport has none.
#[test]
fn ipv6_over_ipv4() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let both = |host: u8, number: u32| Peer { both: true, ..Peer::new(host, number) };
    let ours = Ours::start(&hosts[0], &Conf::new(64501, vec![both(2, 64502), both(3, 64503)]).own(1));
    let bird = Bird::start(&hosts[1], &Conf::new(64502, vec![both(1, 64501)]).own(2));
    let frr = Frr::start(&hosts[2], &Conf::new(64503, vec![both(1, 64501)]).own(3));
    let all: [(&dyn Speaker, u8); 3] = [(&ours, 1), (&bird, 2), (&frr, 3)];
    for (speaker, n) in all {
        for other in (1..=3).filter(|other| *other != n) {
            // What comes through ours has its next hop or the first one's: they share a link.
            let hops = |address: fn(u8) -> std::net::IpAddr| [1, other].map(|n| Some(address(n)));
            speaker.has(&own4(other), "by IPv4", &|path| hops(v4).contains(&path.next_hop));
            speaker.has(&own6(other), "by IPv6", &|path| hops(v6).contains(&path.next_hop));
        }
        assert_eq!(speaker.sessions().unwrap().len(), if n == 1 { 2 } else { 1 }, "{}", speaker.name());
    }
}

/// To FRR ours is of another AS than to BIRD; BIRD's private number does not get to FRR.
#[test]
fn another_number_for_one_and_no_private_ones() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let peers = vec![Peer::new(2, 65010), Peer::new(3, 64503)];
    let changes = [json!({}), json!({"local-as": 64499, "remove-private-as": true})];
    let ours = ours(&hosts[0], &Conf::new(64501, peers).own(1), &changes);
    let bird = Bird::start(&hosts[1], &Conf::new(65010, vec![Peer::new(1, 64501)]).own(2));
    let frr = Frr::start(&hosts[2], &Conf::new(64503, vec![Peer::new(1, 64499)]).own(3));
    path(&frr, &own4(1), &[64499]);
    path(&frr, &own4(2), &[64499]);
    path(&bird, &own4(1), &[64501]);
    path(&bird, &own4(3), &[64501, 64503]);
    path(&ours, &own4(2), &[65010]);
}

/// Two places of one AS on both sides of ours hear of each other where ours puts its number over theirs.
#[test]
fn the_number_of_a_neighbour_is_overridden() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let over = json!({"as-override": true});
    let peers = vec![Peer::new(2, 64510), Peer::new(3, 64510)];
    let _ours = ours(&hosts[0], &Conf::new(64501, peers), &[over.clone(), over]);
    let bird = Bird::start(&hosts[1], &Conf::new(64510, vec![Peer::new(1, 64501)]).own(2));
    let frr = Frr::start(&hosts[2], &Conf::new(64510, vec![Peer::new(1, 64501)]).own(3));
    path(&frr, &own4(2), &[64501, 64501]);
    path(&bird, &own4(3), &[64501, 64501]);
}

/// Two of ours in one AS with BIRD's between them: who allows its own number in paths has the other's routes.
#[test]
fn our_own_number_is_allowed() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let peer = || vec![Peer::new(2, 64502)];
    let strict = ours(&hosts[0], &Conf::new(64501, peer()).network("10.1.0.0/24", &[]), &[]);
    let _bird = Kind::Bird.start(&hosts[1], &Conf::new(64502, vec![Peer::new(1, 64501), Peer::new(3, 64501)]));
    let allows = Conf::new(64501, peer()).network("10.3.0.0/24", &[]);
    let allows = ours(&hosts[2], &allows, &[json!({"allow-own-as": 1})]);
    path(&allows, "10.1.0.0/24", &[64502, 64501]);
    refuses(&strict, "10.3.0.0/24", "our AS is in the AS path");
}

/// What is told of a prefix is refused, and why.
fn refuses(ours: &Ours, prefix: &str, why: &str) {
    eventually(&format!("{prefix} is refused"), || {
        let views = ours.route_views()?;
        let paths: Vec<_> =
            views.iter().filter(|view| view.prefix.to_string() == prefix).flat_map(|view| &view.paths).collect();
        ensure!(paths.len() == 1 && paths[0].refused && paths[0].why.contains(why), "{paths:?}");
        Ok(())
    });
}

/// A route server of BIRD's leaves its number out: taken where that is allowed; and FRR inside of our AS is told our address.
#[test]
fn a_route_server_and_our_address_inside_of_the_as() {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    let peers = vec![Peer::new(2, 64502), Peer::new(3, 64501)];
    let changes = [json!({"enforce-first-as": false}), json!({"next-hop": "self"})];
    let _ours = ours(&hosts[0], &Conf::new(64501, peers).network("10.1.0.0/24", &[]), &changes);
    let clients = [(1, 64501), (4, 64504)];
    let server = clients.map(|(host, number)| Peer { extra: "rs client;", ..Peer::new(host, number) });
    let _server = Bird::start(&hosts[1], &Conf::new(64502, server.into()));
    let frr = Frr::start(&hosts[2], &Conf::new(64501, vec![Peer::new(1, 64501)]));
    // This one doesn't allow it.
    let strict = Ours::start(&hosts[3], &Conf::new(64504, vec![Peer::new(2, 64502)]).network("10.4.0.0/24", &[]));
    let told = frr.has("10.4.0.0/24", "by our address", &|path| path.next_hop == Some(v4(1)));
    assert_eq!(told.as_path, [64504]);
    refuses(&strict, "10.1.0.0/24", "does not begin with the neighbour's AS");
}
