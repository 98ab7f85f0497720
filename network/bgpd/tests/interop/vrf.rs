//! Speakers in a VRF: its links, its addresses and its table are theirs, whatever is beside it; and one whose routes are in a
//! table that rules lead to. Where the kernel has no VRFs,
//! what is said of that is all that is tried.

use std::process::Command;

use anyhow::ensure;
use meta::Prefix;

use crate::frr::Frr;
use crate::lab::{Host, Lab, eventually, v4, v6};
use crate::ours::{Ours, configuration};
use crate::speaker::{Conf, Kind, Peer, Speaker, own4, own6};

const RED: &str = "red";
/// Of the VRF.
const TABLE: u32 = 10;

/// Whether this kernel has VRFs. A speaker that is to be in one that is not there says so and ends.
fn has_vrfs() -> bool {
    let lab = Lab::new();
    let host = lab.host(1);
    let ours = Ours::start(&host, &Conf { vrf: Some(RED), ..Conf::new(64501, vec![]) });
    eventually("it says what is lacking", || {
        let said = "vrf: red is not there; `ip link add red type vrf table 10` makes it, on a kernel with VRFs";
        ensure!(ours.log().contains(said), "{}", ours.log());
        Ok(())
    });
    let made = host.say(Command::new("/sbin/ip").args(["link", "add", RED, "type", "vrf", "table", "10"]));
    match &made {
        Err(why) if why.to_string().contains("Unknown device type") => {
            println!("skipped: this kernel has no VRFs (CONFIG_NET_VRF)");
            false
        }
        Err(why) => panic!("{why}"),
        Ok(_) => true,
    }
}

/// A host whose link is in a VRF. What is beside it has the other end's addresses for its own.
fn host(lab: &Lab, n: u8, other: u8) -> Host {
    let host = lab.host(n);
    let ip = |words: &str| host.say(Command::new("/sbin/ip").args(words.split(' '))).unwrap();
    // Else what is beside it goes before it, as Linux has it from the start.
    for family in ["-4", "-6"] {
        ip(&format!("{family} rule add pref 32765 table local"));
        ip(&format!("{family} rule del pref 0"));
    }
    ip("link add red type vrf table 10");
    ip("link set red up");
    ip("link set eth0 master red");
    // Those of IPv6 go with the change.
    ip(&format!("addr replace {}/64 dev eth0 nodad", v6(n)));
    ip(&format!("addr add {}/32 dev lo", v4(other)));
    ip(&format!("addr add {}/128 dev lo nodad", v6(other)));
    host
}

/// A route is in that table, and in no other.
fn is_in_the_table(host: &Host, dst: &str) {
    let dst: Prefix = dst.parse().unwrap();
    eventually("it is in the table", || {
        let routes = host.rtnl().routes_of(None, |route| (route.dst == dst).then_some(route))?;
        ensure!(routes.len() == 1 && routes[0].table == TABLE && routes[0].gateway().is_some(), "{routes:?}");
        Ok(())
    });
}

fn conf(n: u8, peers: Vec<Peer>) -> Conf {
    Conf { kernel: true, vrf: Some(RED), ..Conf::new(64500 + u32::from(n), peers).own(n) }
}

#[test]
fn ours_in_a_vrf_and_bird_behind_it() {
    if !has_vrfs() {
        return;
    }
    let lab = Lab::new();
    let (one, two) = (host(&lab, 1, 2), lab.host(2));
    // They connect, signed, watched by BFD; ours connects.
    let signed = |host: u8, passive: bool| Peer {
        password: Some("secret".to_owned()),
        bfd: true,
        passive,
        ..Peer::new(host, 64500 + u32::from(host))
    };
    let plain = |host: u8, passive: bool| Peer { passive, ..Peer::new(host, 64500 + u32::from(host)).ipv6() };
    let ours = Ours::start(&one, &conf(1, vec![signed(2, true), plain(2, false)]));
    let theirs = Conf::new(64502, vec![signed(1, false), plain(1, true)]).own(2);
    let bird = Kind::Bird.start(&two, &theirs);
    ours.meets(&[v4(2), v6(2)]);
    bird.learns(&[&own4(1), &own6(1)]);
    [own4(2), own6(2)].iter().for_each(|dst| is_in_the_table(&one, dst));
    eventually("BFD is up", || {
        let bfd = ours.neighbor(v4(2))?.bfd;
        ensure!(bfd.as_deref() == Some("Up"), "{bfd:?}");
        Ok(())
    });
}

#[test]
fn ours_and_frr_both_in_a_vrf() {
    if !has_vrfs() {
        return;
    }
    let lab = Lab::new();
    let (one, two) = (host(&lab, 1, 2), host(&lab, 2, 1));
    let peers =
        |host: u8| vec![Peer::new(host, 64500 + u32::from(host)), Peer::new(host, 64500 + u32::from(host)).ipv6()];
    let ours = Ours::start(&one, &conf(1, peers(2)));
    let frr = Frr::start(&two, &conf(2, peers(1)));
    ours.meets(&[v4(2), v6(2)]);
    frr.learns(&[&own4(1), &own6(1)]);
    [own4(2), own6(2)].iter().for_each(|dst| is_in_the_table(&one, dst));
    [own4(1), own6(1)].iter().for_each(|dst| is_in_the_table(&two, dst));
}

/// A table to which rules of an administrator lead, without a VRF: next hops are found by the main one.
#[test]
fn routes_of_frr_go_into_a_table_of_their_own() {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let peers = |host: u8| {
        let number = 64500 + u32::from(host);
        vec![Peer::new(host, number), Peer::new(host, number).ipv6()]
    };
    let mut all = configuration(&one, &Conf { kernel: true, ..Conf::new(64501, peers(2)).own(1) });
    all["kernel"]["table"] = TABLE.into();
    let ours = Ours::with(&one, &all, false);
    let mut frr = Frr::start(&two, &Conf::new(64502, peers(1)).own(2));
    ours.learns(&[&own4(2), &own6(2)]);
    [own4(2), own6(2)].iter().for_each(|dst| is_in_the_table(&one, dst));
    frr.learns(&[&own4(1), &own6(1)]);
    frr.kill();
    drop(frr);
    // Kept for the restart time, and gone after it.
    [own4(2), own6(2)].iter().for_each(|dst| is_in_the_table(&one, dst));
    eventually("the table is empty", || {
        let left = one.rtnl().routes_of(Some(TABLE), Some)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    });
}

/// Unnumbered, in a VRF.
#[test]
fn ours_and_frr_find_each_other_on_a_link_of_a_vrf() {
    if !has_vrfs() {
        return;
    }
    let lab = Lab::new();
    let (one, two) = (host(&lab, 1, 2), host(&lab, 2, 1));
    let peers = |host: u8| vec![Peer { unnumbered: true, ..Peer::new(host, 64500 + u32::from(host)) }];
    let ours = Ours::start(&one, &conf(1, peers(2)));
    let frr = Frr::start(&two, &conf(2, peers(1)));
    ours.learns(&[&own4(2), &own6(2)]);
    frr.learns(&[&own4(1), &own6(1)]);
    is_in_the_table(&one, &own4(2));
}
