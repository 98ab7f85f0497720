//! Routes that outlive the restart time (RFC 9494): the last resort, marked so that all see it.

use anyhow::ensure;

use crate::frr::Frr;
use crate::lab::{Lab, eventually, v4};
use crate::ours::Ours;
use crate::speaker::{Conf, Kind, Path, Peer, Speaker, own4};

/// The community LLGR_STALE, and what FRR calls it.
const STALE: [&str; 2] = ["65535:6", "llgrStale"];

fn peer(host: u8) -> Peer {
    Peer { long_lived: true, hold: 6, ..Peer::new(host, 64500 + u32::from(host)) }
}

fn conf(n: u8, others: &[u8]) -> Conf {
    Conf::new(64500 + u32::from(n), others.iter().map(|host| peer(*host)).collect()).network(&own4(n), &["1:1"])
}

fn is_stale(path: &Path) -> bool {
    path.communities.iter().any(|community| STALE.contains(&community.as_str()))
}

/// Theirs is killed and stays away for longer than it said: ours keeps its route, and tells it to whoever speaks of such
/// routes, as what it is. Who does not hears that it is gone (RFC 9494 4.3).
fn ours_keeps(other: Kind) {
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    let mut all = conf(1, &[2, 3]);
    all.peers.push(Peer { hold: 6, ..Peer::new(4, 64504) });
    let ours = Ours::start(&hosts[0], &all);
    let mut theirs = other.start(&hosts[1], &conf(2, &[1]));
    let knows = Kind::Bird.start(&hosts[2], &conf(3, &[1]));
    let knows_not = Frr::start(&hosts[3], &Conf::new(64504, vec![Peer { hold: 6, ..Peer::new(1, 64501) }]));
    let route = own4(2);
    for speaker in [&ours as &dyn Speaker, &*knows, &knows_not] {
        speaker.has(&route, "as it was told", &|path| !is_stale(path));
    }
    theirs.kill();
    drop(theirs);
    knows.has(&route, "as the last resort", &is_stale);
    knows_not.loses(&[&route]);
    eventually("ours says what it is", || {
        let view = ours.route_views()?.into_iter().find(|view| view.prefix.to_string() == route);
        let view = view.ok_or_else(|| anyhow::anyhow!("no route"))?;
        ensure!(view.paths.len() == 1 && view.paths[0].stale, "{view:?}");
        Ok(())
    });
    // It comes back: all is as it was.
    let _theirs = other.start(&hosts[1], &conf(2, &[1]));
    for speaker in [&ours as &dyn Speaker, &*knows, &knows_not] {
        speaker.has(&route, "as it was told again", &|path| !is_stale(path));
    }
}

#[test]
fn ours_keeps_birds_routes() {
    ours_keeps(Kind::Bird);
}

#[test]
fn ours_keeps_frrs_routes() {
    ours_keeps(Kind::Frr);
}

#[test]
fn ours_keeps_gobgps_routes() {
    ours_keeps(Kind::Gobgp);
}

/// Ours is killed and stays away: theirs keeps its route, marked, and takes it for any other when ours is back.
fn they_keep(other: Kind) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let mut ours = Ours::start(&one, &conf(1, &[2]));
    let mut passive = conf(2, &[1]);
    passive.peers[0].passive = true;
    let theirs = other.start(&two, &passive);
    let route = own4(1);
    theirs.has(&route, "as it was told", &|path| !is_stale(path));
    ours.kill();
    theirs.has(&route, "as the last resort", &is_stale);
    ours.again();
    theirs.meets(&[v4(1)]);
    theirs.has(&route, "as it was told again", &|path| !is_stale(path));
}

#[test]
fn bird_keeps_ours() {
    they_keep(Kind::Bird);
}

#[test]
fn frr_keeps_ours() {
    they_keep(Kind::Frr);
}

#[test]
fn gobgp_keeps_ours() {
    they_keep(Kind::Gobgp);
}
