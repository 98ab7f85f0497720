//! Restarts over which no packet is lost: ours is killed and started again, or they are.

use std::time::Duration;

use bgpd::control::Command as Question;
use linux::netlink::{Monitor, Topic};
use meta::Prefix;

use crate::gobgp::Gobgp;
use crate::lab::{Host, Lab, eventually, v4};
use crate::ours::Ours;
use crate::speaker::{Conf, Kind, Peer, Speaker, own4};
use crate::traffic::{Traffic, in_kernel, ways};

/// The second host's speaker waits for ours: to BIRD a connection that comes beside one of its own, just made, is one more
/// restart, and it keeps nothing over two.
fn conf(number: u32, peer: u8, peer_number: u32, n: u8) -> Conf {
    let peers = vec![Peer { hold: 9, passive: n == 2, ..Peer::new(peer, peer_number) }];
    Conf { kernel: true, ..Conf::new(number, peers).network(&own4(n), &["1:1"]) }
}

/// `kill -9` of ours and a start: packets keep flowing through both kernels.
fn ours_restarts(other: Kind) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let mut ours = Ours::start(&one, &conf(64501, 2, 64502, 1));
    let theirs = other.start(&two, &conf(64502, 1, 64501, 2));
    in_kernel(&one, &own4(2), 2);
    in_kernel(&two, &own4(1), 1);
    let traffic = Traffic::between(&one, &two);
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..2 {
        ours.kill();
        std::thread::sleep(Duration::from_secs(2));
        ours.again();
        // Once it has told all: one who goes before that takes his routes along (RFC 4724 4.2).
        eventually("ours is back", || {
            let summary = &ours.ask(&Question::Summary)?[0];
            anyhow::ensure!(ours.sessions()? == [v4(2)] && summary["waitingForNeighbors"] == false, "{summary}");
            Ok(())
        });
        ours.learns(&[&own4(2)]);
        theirs.learns(&[&own4(1)]);
        std::thread::sleep(Duration::from_secs(1));
    }
    std::thread::sleep(Duration::from_secs(1));
    in_kernel(&one, &own4(2), 2);
    let (lost, sent) = traffic.end();
    assert!(sent > 100, "{sent}");
    assert_eq!(lost, 0, "packets of {sent} with {}", theirs.name());
}

#[test]
fn ours_beside_bird() {
    ours_restarts(Kind::Bird);
}

#[test]
fn ours_beside_frr() {
    ours_restarts(Kind::Frr);
}

#[test]
fn ours_beside_ours() {
    ours_restarts(Kind::Ours);
}

/// The same by the link alone: ours finds FRR once more before anything is decided.
#[test]
fn ours_unnumbered_beside_frr() {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let unnumbered = |mut conf: Conf| {
        conf.peers[0].unnumbered = true;
        conf
    };
    let mut ours = Ours::start(&one, &unnumbered(conf(64501, 2, 64502, 1)));
    let frr = Kind::Frr.start(&two, &unnumbered(conf(64502, 1, 64501, 2)));
    let goes = |host: &Host, n: u8, to: &Host| {
        eventually("a route by the link", || {
            let ways = ways(host, &own4(n));
            anyhow::ensure!(ways.len() == 1 && [to.link_local(), v4(to.n)].contains(&ways[0]), "{ways:?}");
            Ok(())
        });
    };
    goes(&one, 2, &two);
    goes(&two, 1, &one);
    let traffic = Traffic::between(&one, &two);
    std::thread::sleep(Duration::from_millis(500));
    ours.kill();
    std::thread::sleep(Duration::from_secs(2));
    ours.again();
    eventually("ours is back", || {
        let summary = &ours.ask(&Question::Summary)?[0];
        anyhow::ensure!(ours.sessions()? == [two.link_local()] && summary["waitingForNeighbors"] == false, "{summary}");
        Ok(())
    });
    ours.learns(&[&own4(2)]);
    frr.learns(&[&own4(1)]);
    std::thread::sleep(Duration::from_secs(1));
    goes(&one, 2, &two);
    let (lost, sent) = traffic.end();
    assert!(sent > 100, "{sent}");
    assert_eq!(lost, 0, "packets of {sent}");
}

/// Theirs is killed: ours keeps its routes until it is back.
fn they_restart(other: Kind) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let ours = Ours::start(&one, &conf(64501, 2, 64502, 1));
    let mut theirs = other.start(&two, &conf(64502, 1, 64501, 2));
    in_kernel(&one, &own4(2), 2);
    in_kernel(&two, &own4(1), 1);
    let traffic = Traffic::between(&one, &two);
    theirs.kill();
    eventually("ours has noticed", || {
        anyhow::ensure!(ours.sessions()?.is_empty());
        Ok(())
    });
    let stale = ours.route_views().unwrap().into_iter().find(|view| view.prefix.to_string() == own4(2)).unwrap();
    assert!(stale.paths[0].stale, "{stale:?}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(ways(&one, &own4(2)), [v4(2)], "kept");
    let (lost, sent) = traffic.end();
    assert_eq!(lost, 0, "packets of {sent} while {} is away", theirs.name());
    drop(theirs);
    // He stays away for longer than he said: what he told goes.
    ours.loses(&[&own4(2)]);
    eventually("the kernel has it no more", || {
        anyhow::ensure!(ways(&one, &own4(2)).is_empty());
        Ok(())
    });
}

/// GoBGP is killed, and comes back: our kernel has its route all the time.
#[test]
fn gobgp_restarts_and_its_routes_never_leave_our_kernel() {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let ours = Ours::start(&one, &conf(64501, 2, 64502, 1));
    let his = conf(64502, 1, 64501, 2);
    let mut gobgp = Gobgp::start(&two, &his);
    in_kernel(&one, &own4(2), 2);
    let monitor = Monitor::open_in(&one.ns, &[Topic::Routes]).unwrap();
    gobgp.kill();
    eventually("ours has noticed", || {
        anyhow::ensure!(ours.sessions()?.is_empty());
        Ok(())
    });
    let stale = || -> anyhow::Result<bool> {
        let view = ours.route_views()?.into_iter().find(|view| view.prefix.to_string() == own4(2));
        Ok(view.ok_or_else(|| anyhow::anyhow!("no route"))?.paths[0].stale)
    };
    assert!(stale().unwrap());
    drop(gobgp);
    // It is told its routes only when it runs, and would say before that that it has none.
    lab.cut(&two, true);
    let gobgp = Gobgp::again(&two, &his);
    lab.cut(&two, false);
    ours.meets(&[v4(2)]);
    eventually("it has told its route again", || {
        anyhow::ensure!(!stale()?);
        Ok(())
    });
    gobgp.learns(&[&own4(1)]);
    in_kernel(&one, &own4(2), 2);
    let dst: Prefix = own4(2).parse().unwrap();
    let mut gone = Vec::new();
    let look = |event| match &event {
        linux::netlink::Event::Gone(linux::netlink::Item::Route(route)) if route.dst == dst => gone.push(event),
        _ => {}
    };
    monitor.drain(look).unwrap();
    assert!(gone.is_empty(), "{gone:?}");
}

/// Ours is killed, and comes back: GoBGP keeps its route meanwhile.
#[test]
fn gobgp_keeps_routes_of_ours() {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let mut ours = Ours::start(&one, &conf(64501, 2, 64502, 1));
    let gobgp = Gobgp::start(&two, &conf(64502, 1, 64501, 2));
    gobgp.learns(&[&own4(1)]);
    in_kernel(&one, &own4(2), 2);
    ours.kill();
    eventually("GoBGP has noticed", || {
        anyhow::ensure!(gobgp.sessions()?.is_empty());
        Ok(())
    });
    let has = |speaker: &dyn Speaker| speaker.routes().unwrap().contains_key(&own4(1).parse::<Prefix>().unwrap());
    assert!(has(&gobgp), "it is gone with the session");
    ours.again();
    eventually("a session once more", || {
        assert!(has(&gobgp), "it was gone for a moment");
        anyhow::ensure!(gobgp.sessions()? == [v4(1)]);
        Ok(())
    });
    in_kernel(&one, &own4(2), 2);
    std::thread::sleep(Duration::from_secs(1));
    assert!(has(&gobgp));
}

#[test]
fn bird_restarts() {
    they_restart(Kind::Bird);
}

#[test]
fn frr_restarts() {
    they_restart(Kind::Frr);
}
