//! Routes and sessions that come and go many times: in the end everybody has what is there. Thousands under `--full`.

use std::process::Command;
use std::time::Instant;

use anyhow::ensure;

use crate::bird::Bird;
use crate::lab::{Lab, eventually, v4};
use crate::ours::Ours;
use crate::speaker::{Conf, Kind, Peer, Speaker};

/// A script of ExaBGP's makes routes come and go; ours passes them on to the others.
#[test]
fn routes_that_come_and_go() {
    let flaps = if testkit::full() { 10_000 } else { 1_000 };
    let lab = Lab::new();
    let hosts = [1, 2, 3, 4].map(|n| lab.host(n));
    let peers = [2, 3, 4].map(|host| Peer::new(host, 64500 + u32::from(host))).to_vec();
    let ours = Ours::start(&hosts[0], &Conf::new(64501, peers));
    let peer = || vec![Peer::new(1, 64501)];
    let others = [(Kind::Bird, 3_u8), (Kind::Frr, 4)]
        .map(|(kind, n)| kind.start(&hosts[usize::from(n) - 1], &Conf::new(64500 + u32::from(n), peer())));
    ours.meets(&[v4(3), v4(4)]);
    // Of ten prefixes each is told and taken back by turns, with another community each time; the odd ones stay.
    let script = format!(
        "import sys, time\nfor n in range({flaps}):\n  p = '10.2.%d.0/24' % (n % 10)\n  \
         print('announce route %s next-hop 10.0.0.2 community [ 7:%d ]' % (p, n % 60000))\n  \
         print('withdraw route %s next-hop 10.0.0.2' % p)\n  \
         if n % 50 == 0: sys.stdout.flush(); time.sleep(0.01)\n\
         for n in range(1, 10, 2):\n  print('announce route 10.2.%d.0/24 next-hop 10.0.0.2 community [ 8:8 ]' % n)\n\
         print('announce route 10.3.0.0/24 next-hop 10.0.0.2')\nsys.stdout.flush()\ntime.sleep(100000)\n"
    );
    let script = hosts[1].file("flap.py", &script);
    let text = format!(
        "process flap {{ run /usr/bin/python3 {}; encoder text; }}\nneighbor 10.0.0.1 {{ router-id 10.0.0.2; \
         local-address 10.0.0.2; local-as 64502; peer-as 64501; family {{ ipv4 unicast; }} \
         api {{ processes [ flap ]; }} }}\n",
        script.display()
    );
    let file = hosts[1].file("flap.conf", &text);
    let began = Instant::now();
    let mut command = Command::new("/usr/sbin/exabgp");
    command.arg(file).envs([("exabgp.daemon.user", "root"), ("exabgp.log.destination", "stdout")]);
    command.envs([("exabgp.api.cli", "false"), ("exabgp.api.ack", "false")]);
    let _exabgp = hosts[1].start("exabgp", &mut command);
    let speakers: Vec<&dyn Speaker> = vec![&ours, &*others[0], &*others[1]];
    for speaker in speakers {
        speaker.learns(&["10.3.0.0/24"]);
        eventually(&format!("{} has what is left", speaker.name()), || {
            let table = speaker.routes()?;
            let left: Vec<u8> =
                (0..10).filter(|n| table.contains_key(&format!("10.2.{n}.0/24").parse().unwrap())).collect();
            ensure!(left == [1, 3, 5, 7, 9], "{left:?}");
            let last = |n: &u8| table[&format!("10.2.{n}.0/24").parse().unwrap()][0].communities == ["8:8"];
            ensure!(left.iter().all(last), "not the last that was told");
            Ok(())
        });
    }
    let view = ours.neighbor(v4(2)).unwrap();
    println!("{flaps} flaps in {:?}: {:?}", began.elapsed(), view.messages_received);
    assert_eq!((view.sessions, view.faults), (1, 0), "{view:?}");
    assert_eq!(ours.neighbor(v4(3)).unwrap().sessions, 1);
}

#[test]
fn sessions_that_come_and_go() {
    let flaps = if testkit::full() { 300 } else { 20 };
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let plain = |host: u8| Peer { graceful: false, ..Peer::new(host, 64500 + u32::from(host)) };
    let ours = Ours::start(&hosts[0], &Conf::new(64501, vec![plain(2), plain(3)]));
    let bird = Bird::start(&hosts[1], &Conf::new(64502, vec![plain(1)]).network("10.2.0.0/24", &[]));
    let frr = Kind::Frr.start(&hosts[2], &Conf::new(64503, vec![plain(1)]));
    frr.learns(&["10.2.0.0/24"]);
    for n in 0..flaps {
        bird.ask("restart p0").unwrap();
        if n % 5 == 0 {
            ours.meets(&[v4(2)]);
        }
    }
    ours.meets(&[v4(2), v4(3)]);
    frr.learns(&["10.2.0.0/24"]);
    assert_eq!(ours.neighbor(v4(3)).unwrap().sessions, 1);
    bird.ask("disable p0").unwrap();
    frr.loses(&["10.2.0.0/24"]);
    assert!(ours.routes().unwrap().is_empty(), "{:?}", ours.routes());
}
