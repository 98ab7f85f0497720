//! Which subnets a host takes: those that it has, those that it had, or free ones. What lacks a family that the network has
//! got stays, with a free one of that family. Pure; chance is an argument. Caller:
//! the etcd subnet manager.

use std::net::IpAddr;

use meta::Prefix;

use crate::config::{NetConf, Range};
use crate::lease::{Attributes, Subnets};

/// A host takes one at random of the first that are free: two that come at once seldom choose the same, and the subnets
/// of a network are still close together.
const CANDIDATES: usize = 100;

/// A lease that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub subnets: Subnets,
    pub attributes: Attributes,
    /// An administrator has written it, for good: it has no lease of etcd.
    pub reserved: bool,
    /// The revision of etcd at which it was written.
    pub revision: i64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This is the host's own already: it is written again.
    Keep { subnets: Subnets, reserved: bool },
    /// It is free, and to be made if it still is.
    Make(Subnets),
    /// The first is the host's own, and lacks a family: the second is to stand in its place.
    Grow { from: Subnets, to: Subnets, reserved: bool },
    /// It is the host's own and none that a host may have any more: it is removed, and asked again.
    Drop(Subnets),
}

/// None of the range is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all subnets of {network} are taken: widen the network or make SubnetLen longer")]
pub struct Full {
    pub network: Prefix,
}

/// `previous` is what the host had when its subnet file was written; `pick(n)` is a number below n.
pub fn choose(
    conf: &NetConf,
    held: &[Held],
    own: &Attributes,
    previous: Option<Subnets>,
    mut pick: impl FnMut(usize) -> usize,
) -> Result<Choice, Full> {
    let same = |a: Option<IpAddr>, b: Option<IpAddr>| a.is_some() && a == b;
    let mine = |h: &&Held| {
        let theirs = &h.attributes;
        // Hosts are known by the address that they have had longest.
        same(own.address(false), theirs.address(false))
            || own.public_ip.is_none() && same(own.address(true), theirs.address(true))
    };
    // What there is of one family fits, and another family is there besides.
    let is_part = |subnets: &Subnets| !conf.fits(subnets) && conf.only(subnets).fits(subnets);
    let mut whole = |part: Subnets| {
        let mut one = |range: Option<Range>, has: Option<Prefix>| match (has, range) {
            (None, Some(range)) => free_one(&range, held, &mut pick).map(Some),
            (has, _) => Ok(has),
        };
        Ok(Subnets { v4: one(conf.v4, part.v4)?, v6: one(conf.v6, part.v6)? })
    };
    if let Some(Held { subnets: mine, reserved, .. }) = held.iter().find(mine) {
        return Ok(match *mine {
            mine if conf.fits(&mine) => Choice::Keep { subnets: mine, reserved: *reserved },
            mine if is_part(&mine) => Choice::Grow { from: mine, to: whole(mine)?, reserved: *reserved },
            mine => Choice::Drop(mine),
        });
    }
    let free = |subnets: &Subnets| !held.iter().any(|h| h.subnets.overlaps(subnets));
    let had = previous.filter(|previous| (conf.fits(previous) || is_part(previous)) && free(previous));
    Ok(Choice::Make(whole(had.unwrap_or_default())?))
}

fn free_one(range: &Range, held: &[Held], pick: &mut impl FnMut(usize) -> usize) -> Result<Prefix, Full> {
    let taken: Vec<Prefix> = held.iter().flat_map(|h| h.subnets.each()).collect();
    let is_free = |subnet: &Prefix| !taken.iter().any(|other| other.overlaps(subnet));
    let free: Vec<Prefix> = range.subnets().filter(is_free).take(CANDIDATES).collect();
    match free.len() {
        0 => Err(Full { network: range.network }),
        some => Ok(free[pick(some).min(some - 1)]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conf() -> NetConf {
        NetConf::parse(br#"{"Network": "10.5.0.0/20"}"#).unwrap()
    }

    fn subnets(text: &str) -> Subnets {
        Subnets { v4: Some(text.parse().unwrap()), v6: None }
    }

    fn host(n: u8) -> Attributes {
        Attributes { public_ip: Some([192, 0, 2, n].into()), ..Attributes::default() }
    }

    fn held(subnet: &str, n: u8, reserved: bool) -> Held {
        Held { subnets: subnets(subnet), attributes: host(n), reserved, revision: 0 }
    }

    #[test]
    fn a_host_keeps_what_it_has() {
        let all = [held("10.5.3.0/24", 1, false), held("10.5.4.0/24", 2, true)];
        for (n, subnet, reserved) in [(1, "10.5.3.0/24", false), (2, "10.5.4.0/24", true)] {
            let choice = choose(&conf(), &all, &host(n), Some(subnets("10.5.9.0/24")), |_| 0).unwrap();
            assert_eq!(choice, Choice::Keep { subnets: subnets(subnet), reserved });
        }
    }

    #[test]
    fn what_no_host_may_have_any_more_is_given_up() {
        let all = [held("10.9.3.0/24", 1, false)];
        assert_eq!(choose(&conf(), &all, &host(1), None, |_| 0).unwrap(), Choice::Drop(subnets("10.9.3.0/24")));
    }

    #[test]
    fn what_a_host_had_is_its_own_unless_another_has_it_or_it_fits_no_more() {
        let all = [held("10.5.3.0/24", 1, false)];
        let choice = |previous: &str| choose(&conf(), &all, &host(7), Some(subnets(previous)), |_| 0).unwrap();
        assert_eq!(choice("10.5.9.0/24"), Choice::Make(subnets("10.5.9.0/24")));
        for other in ["10.5.3.0/24", "10.9.3.0/24", "10.5.8.0/23", "10.5.0.0/24"] {
            assert_eq!(choice(other), Choice::Make(subnets("10.5.1.0/24")), "{other}");
        }
    }

    #[test]
    fn a_full_network_says_so() {
        let mut all: Vec<Held> = (1..16).map(|n| held(&format!("10.5.{n}.0/24"), n, false)).collect();
        let full = choose(&conf(), &all, &host(77), None, |_| 0).unwrap_err();
        assert_eq!(
            full.to_string(),
            "all subnets of 10.5.0.0/20 are taken: widen the network or make SubnetLen longer"
        );
        all.pop();
        assert_eq!(choose(&conf(), &all, &host(77), None, |_| 0), Ok(Choice::Make(subnets("10.5.15.0/24"))));
    }

    #[test]
    fn each_family_gets_its_own() {
        let text = br#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48"}"#;
        let choice = choose(&NetConf::parse(text).unwrap(), &[], &host(1), None, |n| n - 1).unwrap();
        let Choice::Make(made) = choice else { panic!("{choice:?}") };
        assert_eq!(made.to_string(), "10.5.100.0/24 and fd00:5:0:64::/64", "the hundredth that is free");
    }

    #[test]
    fn what_a_host_has_of_one_family_stays_when_the_network_gets_another() {
        let text = br#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48"}"#;
        let (two, v4) = (NetConf::parse(text).unwrap(), subnets("10.5.3.0/24"));
        let both = |v6: &str| Subnets { v6: Some(v6.parse().unwrap()), ..v4 };
        let mut other = held("10.5.4.0/24", 2, false);
        other.subnets.v6 = Some("fd00:5:0:1::/64".parse().unwrap());
        for reserved in [false, true] {
            let all = [held("10.5.3.0/24", 1, reserved), other.clone()];
            let grow = Choice::Grow { from: v4, to: both("fd00:5:0:2::/64"), reserved };
            assert_eq!(choose(&two, &all, &host(1), None, |_| 0), Ok(grow));
        }
        // Etcd has forgotten it, and its pods have not.
        assert_eq!(choose(&two, &[other], &host(1), Some(v4), |_| 0), Ok(Choice::Make(both("fd00:5:0:2::/64"))));
        // A family that the network has no more is not kept.
        let all = [Held { subnets: both("fd00:5:0:2::/64"), ..held("10.5.3.0/24", 1, false) }];
        assert_eq!(choose(&conf(), &all, &host(1), None, |_| 0), Ok(Choice::Drop(both("fd00:5:0:2::/64"))));
    }

    proptest! {
        #[test]
        fn nobody_gets_what_another_has(taken in proptest::collection::vec(1u8..16, 0..20), random in any::<usize>()) {
            let all: Vec<Held> = taken.iter().map(|n| held(&format!("10.5.{n}.0/24"), *n, false)).collect();
            match choose(&conf(), &all, &host(99), None, |n| random % n) {
                Ok(Choice::Make(made)) => {
                    prop_assert!(conf().fits(&made) && !all.iter().any(|h| h.subnets.overlaps(&made)));
                }
                other => prop_assert!(other.is_err() && (1..16).all(|n| taken.contains(&n))),
            }
        }
    }
}
