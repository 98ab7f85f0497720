//! What ends a session or keeps it from beginning, and what is said of that; and who comes without having been named.

use anyhow::ensure;
use bgpd::control::Command as Question;
use serde_json::{Value, json};

use crate::bird::Bird;
use crate::exabgp::Exabgp;
use crate::lab::{Host, Lab, eventually, v4, v6};
use crate::ours::{Ours, configuration};
use crate::speaker::{Conf, Kind, Peer, Speaker};

/// Ours on the first host with a configuration that is changed.
fn ours(host: &Host, conf: &Conf, change: impl FnOnce(&mut Value)) -> Ours {
    let mut words = configuration(host, conf);
    change(&mut words);
    Ours::with(host, &words, false)
}

fn pair() -> (Lab, Host, Host) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    (lab, one, two)
}

fn says(ours: &Ours, why: &str) {
    eventually("ours says why", || {
        let said = ours.neighbor(v4(2))?.last_error.unwrap_or_default();
        ensure!(said.contains(why), "{said:?} and not {why:?}");
        Ok(())
    });
}

#[test]
fn too_many_prefixes() {
    let (_lab, one, two) = pair();
    let ours = ours(&one, &Conf::new(64501, vec![Peer::new(2, 64502)]), |words| {
        words["neighbors"][0]["prefix-limits"] = json!({"ipv4": {"most": 10, "restart-after": "3s"}});
    });
    let many = (0..11)
        .fold(Conf::new(64502, vec![Peer::new(1, 64501)]), |conf, n| conf.network(&format!("10.2.{n}.0/24"), &[]));
    let bird = Bird::start(&two, &many);
    says(&ours, "maximum number of prefixes");
    // He is tried again, and again has too many.
    eventually("another attempt", || {
        let view = ours.neighbor(v4(2))?;
        ensure!(view.sessions >= 2, "{view:?}");
        Ok(())
    });
    drop(bird);
}

#[test]
fn a_shutdown_says_why() {
    let (_lab, one, two) = pair();
    let ours = ours(&one, &Conf::new(64501, vec![Peer::new(2, 64502)]), |_| ());
    let bird = Bird::start(&two, &Conf::new(64502, vec![Peer::new(1, 64501)]).own(2));
    ours.meets(&[v4(2)]);
    bird.say(&["disable", "p0", "\"new disks\""]).unwrap();
    says(&ours, "new disks");
    bird.ask("enable p0").unwrap();
    ours.meets(&[v4(2)]);
}

/// What ours says at the end is what its neighbour shows.
#[test]
fn they_see_why_ours_ended_it() {
    let (_lab, one, two) = pair();
    let mut words = configuration(&one, &Conf::new(64501, vec![Peer::new(2, 64502)]));
    let ours = Ours::with(&one, &words, false);
    let bird = Bird::start(&two, &Conf::new(64502, vec![Peer::new(1, 64501)]).own(2));
    ours.meets(&[v4(2)]);
    words["neighbors"][0]["enabled"] = json!(false);
    ours.configure(&words);
    ours.ask(&Question::Reload).unwrap();
    eventually("BIRD says what it was told", || {
        let said = bird.ask("show protocols all p0")?;
        ensure!(said.contains("Received: Administrative shutdown") && said.contains("disabled"), "{said}");
        Ok(())
    });
}

/// What the two are to each other must fit (RFC 9234); where it does, what came from above doesn't go up again.
fn roles(other: Kind, provider: &'static str, peer: &'static str) {
    let start = |role: &'static str| {
        let (lab, one, two) = pair();
        let ours = ours(&one, &Conf::new(64501, vec![Peer::new(2, 64502)]), |words| {
            words["neighbors"][0]["role"] = json!("customer");
        });
        let peer = Peer { extra: role, ..Peer::new(1, 64501) };
        let theirs = other.start(&two, &Conf::new(64502, vec![peer]).network("10.2.0.0/24", &[]));
        (lab, ours, theirs)
    };
    let (_lab, ours, _theirs) = start(provider);
    ours.learns(&["10.2.0.0/24"]);
    let views = ours.route_views().unwrap();
    let view = views.iter().find(|view| view.prefix.to_string() == "10.2.0.0/24").unwrap();
    assert_eq!(view.paths[0].attributes.only_to_customer, Some(64502));
    let (_lab, ours, _theirs) = start(peer);
    says(&ours, "role mismatch");
}

#[test]
fn roles_with_bird() {
    roles(Kind::Bird, "local role provider;", "local role peer;");
}

#[test]
fn roles_with_frr() {
    roles(Kind::Frr, "local-role provider", "local-role peer");
}

/// One who carries only routes that ours doesn't.
#[test]
fn nothing_in_common() {
    let (_lab, one, two) = pair();
    let ours = ours(&one, &Conf::new(64501, vec![Peer::new(2, 64502)]), |words| {
        words["neighbors"][0]["families"] = json!(["ipv6"]);
    });
    let exabgp = Exabgp::start(&two, &Conf::new(64502, vec![Peer { graceful: false, ..Peer::new(1, 64501) }]));
    says(&ours, "unsupported capability");
    assert_eq!((ours.sessions().unwrap(), exabgp.sessions().unwrap()), (vec![], vec![]));
}

/// A range of neighbours: whoever comes from there.
#[test]
fn neighbours_who_were_not_named() {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    let ours = ours(&hosts[0], &Conf::new(64501, vec![]).own(1), |words| {
        words["dynamic"] = json!([
            {"prefix": "10.0.0.0/24", "remote-as": "external", "families": ["ipv4"], "limit": 2, "import": "all", "export": "all"},
            {"prefix": "fd00::/64", "remote-as": 64502, "families": ["ipv6"], "import": "all", "export": "all"},
        ]);
    });
    let peers = |number: u32| Conf::new(number, vec![Peer::new(1, 64501), Peer::new(1, 64501).ipv6()]);
    let bird = Kind::Bird.start(&hosts[1], &peers(64502).own(2));
    let frr = Kind::Frr.start(&hosts[2], &peers(64503).own(3));
    ours.meets(&[v4(2), v4(3), v6(2)]);
    bird.learns(&["10.1.0.0/24", "fd00:1::/48", "10.3.0.0/24"]);
    frr.learns(&["10.1.0.0/24", "10.2.0.0/24"]);
    // A third is one too many.
    let gobgp = Kind::Gobgp.start(&hosts[3], &peers(64504).own(4));
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(gobgp.sessions().unwrap().is_empty());
    let mut sessions = ours.sessions().unwrap();
    sessions.sort_unstable();
    assert_eq!(sessions, [v4(2), v4(3), v6(2)]);
}
