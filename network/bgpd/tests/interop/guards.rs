//! Who may be spoken with: passwords, distance, numbers; and who is there at all.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::among_others::check;
use crate::bird::Bird;
use crate::frr::Frr;
use crate::lab::{Host, Lab, eventually, v4, v6};
use crate::ours::Ours;
use crate::speaker::{Conf, Kind, Peer, Speaker, own4};

/// No session is made for this long where there may be none.
const NEVER: Duration = Duration::from_secs(6);

fn each(host: u8, number: u32, change: impl Fn(Peer) -> Peer) -> Vec<Peer> {
    [Peer::new(host, number), Peer::new(host, number).ipv6()].map(change).into()
}

/// Labs of their own, that wait more than they do.
fn at_once<const N: usize>(cases: [&(dyn Fn() + Sync); N]) {
    std::thread::scope(|scope| cases.map(|case| scope.spawn(case)).map(|done| done.join().unwrap()));
}

/// Both say this of the session, and there is one.
fn both(other: Kind, change: impl Fn(Peer) -> Peer) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let ours = Kind::Ours.start(&one, &Conf::new(64501, each(2, 64502, &change)).own(1));
    let theirs = other.start(&two, &Conf::new(64502, each(1, 64501, &change)).own(2));
    check(&*ours, 2);
    check(&*theirs, 1);
}

/// They don't say the same, and there is none.
fn never(other: Kind, here: impl Fn(Peer) -> Peer, there: impl Fn(Peer) -> Peer, why: &str) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let ours = Ours::start(&one, &Conf::new(64501, each(2, 64502, here)).own(1));
    let theirs = other.start(&two, &Conf::new(64502, each(1, 64501, there)).own(2));
    let began = Instant::now();
    while began.elapsed() < NEVER {
        let sessions = (ours.sessions().unwrap_or_default(), theirs.sessions().unwrap_or_default());
        assert_eq!(sessions, (vec![], vec![]), "{}", theirs.name());
        std::thread::sleep(Duration::from_millis(200));
    }
    // A word in the log or of the neighbour says why, where one is heard of it.
    if !why.is_empty() {
        eventually("ours says why", || {
            let said = ours.neighbor(v4(2))?.last_error.unwrap_or_default();
            ensure!(said.contains(why), "{said:?} and not {why:?}");
            Ok(())
        });
    }
}

fn password(text: &'static str) -> impl Fn(Peer) -> Peer {
    move |peer| Peer { password: Some(text.to_owned()), ..peer }
}

fn near(peer: Peer) -> Peer {
    Peer { ttl_security: true, ..peer }
}

#[test]
fn the_same_password_with_bird() {
    both(Kind::Bird, password("a secret"));
}

#[test]
fn the_same_password_with_frr() {
    both(Kind::Frr, password("secret"));
}

#[test]
fn the_same_password_with_gobgp() {
    both(Kind::Gobgp, password("secret"));
}

#[test]
fn the_same_password_with_exabgp() {
    both(Kind::Exabgp, password("secret"));
}

#[test]
fn another_password_or_none() {
    at_once([
        &|| never(Kind::Bird, password("one"), password("two"), ""),
        &|| never(Kind::Frr, |peer| peer, password("two"), ""),
        &|| never(Kind::Gobgp, password("one"), |peer| peer, ""),
    ]);
}

#[test]
fn from_next_door_with_bird() {
    both(Kind::Bird, near);
}

#[test]
fn from_next_door_with_frr() {
    both(Kind::Frr, near);
}

#[test]
fn from_next_door_with_gobgp() {
    both(Kind::Gobgp, near);
}

#[test]
fn from_next_door_with_exabgp() {
    both(Kind::Exabgp, near);
}

/// One who doesn't say that he is near sends packets that may have come from afar.
#[test]
fn from_who_knows_where() {
    at_once([&|| never(Kind::Bird, near, |peer| peer, ""), &|| {
        never(Kind::Frr, near, |peer| Peer { passive: true, ..peer }, "")
    }]);
}

#[test]
fn another_as_than_was_said() {
    let with = |other: Kind| never(other, |peer| Peer { number: 64999, ..peer }, |peer| peer, "bad peer AS");
    at_once([&|| with(Kind::Bird), &|| with(Kind::Frr), &|| with(Kind::Gobgp)]);
}

/// They are who ends it.
#[test]
fn another_as_than_they_were_told() {
    let with = |other: Kind| {
        never(
            other,
            |peer| peer,
            |peer| Peer { number: 64999, ..peer },
            "the neighbour ended it: OPEN message error: bad peer AS",
        )
    };
    at_once([&|| with(Kind::Bird), &|| with(Kind::Frr), &|| with(Kind::Gobgp)]);
}

/// Who is silent for the hold time is gone, on both sides, and his routes with him: here nobody keeps them.
#[test]
fn silence_ends_the_session() {
    let with = |other: Kind| {
        let lab = Lab::new();
        let (one, two) = (lab.host(1), lab.host(2));
        let silent = |peer: Peer| Peer { hold: 6, graceful: false, ..peer };
        let ours = Ours::start(&one, &Conf::new(64501, each(2, 64502, silent)).own(1));
        let theirs = other.start(&two, &Conf::new(64502, each(1, 64501, silent)).own(2));
        check(&ours, 2);
        check(&*theirs, 1);
        lab.cut(&two, true);
        ours.loses(&[&own4(2)]);
        theirs.loses(&[&own4(1)]);
        let said = ours.neighbor(v4(2)).unwrap().last_error.unwrap_or_default();
        assert!(said.contains("hold timer expired"), "{said}");
        lab.cut(&two, false);
        ours.meets(&[v4(2), v6(2)]);
        theirs.learns(&[&own4(1)]);
    };
    at_once([&|| with(Kind::Bird), &|| with(Kind::Frr), &|| with(Kind::Gobgp)]);
}

/// By BFD it is known at once that he is gone, long before the hold time.
fn bfd<S: Speaker>(start: impl Fn(&Host, &Conf) -> S, up: impl Fn(&S) -> Result<(String, usize)>) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let watched = |peer: Peer| Peer { bfd: true, graceful: false, ..peer };
    let ours = Ours::start(&one, &Conf::new(64501, each(2, 64502, watched)).own(1));
    let theirs = start(&two, &Conf::new(64502, each(1, 64501, watched)).own(2));
    check(&ours, 2);
    check(&theirs, 1);
    eventually("theirs has BFD sessions", || {
        let (said, number) = up(&theirs)?;
        ensure!(number == 2, "{said}");
        Ok(())
    });
    eventually("ours has them, too", || {
        for host in [v4(2), v6(2)] {
            let state = ours.neighbor(host)?.bfd;
            ensure!(state.as_deref() == Some("Up"), "{host}: {state:?}");
        }
        Ok(())
    });
    lab.cut(&two, true);
    let began = Instant::now();
    ours.loses(&[&own4(2)]);
    let ended = began.elapsed();
    assert!(ended < Duration::from_secs(30), "not long before the hold time of 90 seconds: {ended:?}");
    println!("without him after {ended:?}");
    let said = ours.neighbor(v4(2)).unwrap().last_error.unwrap_or_default();
    assert!(said.contains("BFD"), "{said}");
    lab.cut(&two, false);
    ours.meets(&[v4(2), v6(2)]);
}

#[test]
fn bfd_with_frr() {
    bfd(Frr::start, |frr| {
        let said = frr.ask("show bfd peers brief json")?;
        let number = said.matches("\"up\"").count();
        Ok((said, number))
    });
}

#[test]
fn bfd_with_bird() {
    bfd(Bird::start, |bird| {
        let said = bird.ask("show bfd sessions")?;
        let number = said.split_whitespace().filter(|word| *word == "Up").count();
        Ok((said, number))
    });
}
