//! Ours with each of the others: sessions of both families and in both directions, and routes with all that is said of
//! them.

use crate::among_others::{check, peers};
use crate::lab::Lab;
use crate::speaker::{Conf, Kind, Peer};

/// Of two ASes.
fn external(other: Kind, ours_passive: bool, theirs_passive: bool) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let passive = |peers: Vec<Peer>, passive: bool| peers.into_iter().map(|p| Peer { passive, ..p }).collect();
    let ours = Conf::new(64501, passive(peers(2, 64502), ours_passive)).own(1);
    let theirs = Conf::new(64502, passive(peers(1, 64501), theirs_passive)).own(2);
    let ours = Kind::Ours.start(&one, &ours);
    let theirs = other.start(&two, &theirs);
    check(&*ours, 2);
    check(&*theirs, 1);
}

/// A number that needs four bytes, and inside of one AS.
fn internal(other: Kind) {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let number = 4_200_000_001;
    let ours = Kind::Ours.start(&one, &Conf::new(number, peers(2, number)).network("10.1.0.0/24", &["1:1"]));
    let theirs = other.start(&two, &Conf::new(number, peers(1, number)).network("10.2.0.0/24", &["2:2"]));
    for (speaker, prefix, community, from) in [(&ours, "10.2.0.0/24", "2:2", 2), (&theirs, "10.1.0.0/24", "1:1", 1)] {
        let path = speaker.has(prefix, "inside of the AS", &|_| true);
        assert_eq!((path.as_path, path.communities), (vec![], vec![community.to_owned()]), "{}", speaker.name());
        assert_eq!(path.next_hop, Some(crate::lab::v4(from)), "{}", speaker.name());
    }
}

macro_rules! with_each {
    ($($name:ident: $kind:ident;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn who_connects_first() {
                external(Kind::$kind, false, false);
            }

            #[test]
            fn they_connect() {
                external(Kind::$kind, true, false);
            }

            #[test]
            fn ours_connects() {
                external(Kind::$kind, false, true);
            }

            #[test]
            fn inside_of_an_as() {
                internal(Kind::$kind);
            }
        }
    )*};
}

with_each! {
    bird: Bird;
    frr: Frr;
    gobgp: Gobgp;
    exabgp: Exabgp;
}
