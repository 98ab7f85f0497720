//! Whatever is written is read again as it was, in as few messages as hold it; and no bytes break a reader.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::attribute::as_path::AS_TRANS;
use bgp::attribute::{
    Aggregator, AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, NextHop, Origin, Unknown,
};
use bgp::family::{Families, Family};
use bgp::message::nlri::Nlri;
use bgp::message::notification::Notification;
use bgp::message::open::Open;
use bgp::message::pack::{self, PackError};
use bgp::message::{Coding, Kind, MAX_MESSAGE, frame, update};
use meta::Prefix;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

fn codings() -> impl Strategy<Value = Coding> {
    let families = prop_oneof![Just(Families::NONE), Just(Families::ALL)];
    (any::<bool>(), any::<bool>(), families).prop_map(|(four_octet_as, extended_messages, add_path)| Coding {
        internal: true,
        four_octet_as,
        extended_messages,
        families: Families::ALL,
        add_path,
        extended_next_hop: Families::ALL,
    })
}

fn next_hops() -> impl Strategy<Value = NextHop> {
    let link_local = any::<u64>().prop_map(|low| Ipv6Addr::from(0xfe80 << 112 | u128::from(low)));
    let global = any::<u64>().prop_map(|low| Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(low)));
    prop_oneof![
        (1u32..0xdfff_ffff).prop_map(|bits| NextHop::V4(bits.into())),
        (global, option::of(link_local)).prop_map(|(global, link_local)| NextHop::V6 { global, link_local }),
    ]
}

fn sets() -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let path = vec(1u32..100_000, 0..300).prop_map(|numbers| AsPath::sequence(&numbers));
    let unknown = btree_set(100u8..120, 0..3).prop_flat_map(|codes| {
        let one =
            |code| vec(any::<u8>(), 0..300).prop_map(move |value| Unknown { flags: 0xe0, code, value: value.into() });
        codes.into_iter().map(one).collect::<Vec<_>>()
    });
    let numbers = (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u32>()), any::<bool>());
    let aggregator = option::of((1u32..100_000, any::<u32>()));
    let communities =
        (btree_set(any::<u32>(), 0..90), btree_set(any::<u64>(), 0..9), btree_set(any::<[u32; 3]>(), 0..9));
    let reflected = (option::of(any::<u32>()), vec(any::<u32>(), 0..4));
    (origin, path, next_hops(), numbers, aggregator, communities, reflected, unknown).prop_map(
        |(
            origin,
            as_path,
            next_hop,
            (med, local_preference, only_to_customer, atomic_aggregate),
            aggregator,
            c,
            r,
            u,
        )| {
            Attributes {
                origin,
                as_path,
                next_hop,
                med,
                local_preference,
                atomic_aggregate,
                aggregator: aggregator.map(|(number, address)| Aggregator { number, address: address.into() }),
                communities: c.0.into_iter().map(Community).collect(),
                originator_id: r.0.map(Ipv4Addr::from),
                cluster_list: r.1.into_iter().map(Ipv4Addr::from).collect(),
                extended_communities: c.1.into_iter().map(ExtendedCommunity).collect(),
                large_communities: c
                    .2
                    .into_iter()
                    .map(|[global, local1, local2]| LargeCommunity { global, local1, local2 })
                    .collect(),
                only_to_customer,
                partial: bgp::attribute::Partial::default(),
                unknown: u.into(),
            }
        },
    )
}

fn routes(family: Family) -> impl Strategy<Value = Vec<Nlri>> {
    let one = (any::<u128>(), 0..=family.width(), any::<u32>()).prop_map(move |(bits, len, path_id)| {
        let address: IpAddr = match family {
            Family::Ipv4Unicast => Ipv4Addr::from(bits as u32).into(),
            Family::Ipv6Unicast => Ipv6Addr::from(bits).into(),
        };
        Nlri { prefix: Prefix::new(address, len).network(), path_id }
    });
    vec(one, 1..2_000)
}

/// What the messages say: routes that go, routes that come, and the sets these have.
fn read_all(mut bytes: &[u8], coding: &Coding) -> (Vec<Nlri>, Vec<Nlri>, Vec<Attributes>, usize) {
    let (mut gone, mut come, mut sets, mut messages) = (Vec::new(), Vec::new(), Vec::new(), 0);
    while let Some((message, taken)) = frame(bytes, coding.extended_messages).expect("sound headers") {
        assert_eq!(message.kind, Kind::Update);
        assert!(taken <= coding.max_message());
        let update = update::read(message.body, coding).expect("sound updates");
        assert_eq!(update.faults, []);
        gone.extend(update.withdrawn().flat_map(|list| list.iter()));
        for (next_hop, list) in update.announced() {
            come.extend(list.iter());
            sets.push(Attributes { next_hop, ..update.attributes.clone() });
        }
        bytes = &bytes[taken..];
        messages += 1;
    }
    assert!(bytes.is_empty());
    (gone, come, sets, messages)
}

fn without_ids(routes: &[Nlri], coding: &Coding, family: Family) -> Vec<Nlri> {
    let one = |nlri: &Nlri| if coding.add_path.has(family) { *nlri } else { nlri.prefix.into() };
    routes.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn announcements_come_back(
        (coding, set, v6) in (codings(), sets(), any::<bool>()),
        (of_v4, of_v6) in (routes(Family::Ipv4Unicast), routes(Family::Ipv6Unicast)),
    ) {
        let v6 = v6 && matches!(set.next_hop, NextHop::V6 { .. });
        let (family, routes) = if v6 { (Family::Ipv6Unicast, of_v6) } else { (Family::Ipv4Unicast, of_v4) };
        let mut bytes = Vec::new();
        pack::announce(&coding, family, &set, &routes, &mut bytes).expect("short enough");
        let (gone, come, sets, messages) = read_all(&bytes, &coding);
        prop_assert_eq!(gone, []);
        prop_assert_eq!(come, without_ids(&routes, &coding, family));
        prop_assert!(sets.iter().all(|read| *read == set), "{sets:?}\n{set:?}");
        // As few as hold them: each but the last is full to within one prefix.
        prop_assert!(messages <= bytes.len() / (coding.max_message() - 64) + 1);
    }

    #[test]
    fn withdrawals_come_back(coding in codings(), v4 in routes(Family::Ipv4Unicast), v6 in routes(Family::Ipv6Unicast)) {
        for (family, routes) in [(Family::Ipv4Unicast, v4), (Family::Ipv6Unicast, v6)] {
            let mut bytes = Vec::new();
            pack::withdraw(&coding, family, &routes, &mut bytes);
            let (gone, come, _, _) = read_all(&bytes, &coding);
            prop_assert_eq!(gone, without_ids(&routes, &coding, family));
            prop_assert_eq!(come, []);
        }
    }

    #[test]
    fn no_bytes_break_a_reader(bytes in vec(any::<u8>(), 0..600), coding in codings(), at in 0..600usize, bit in 0..8u8) {
        let _ = update::read(&bytes, &coding).map(|update| update.announced().map(|(_, l)| l.iter().count()).sum::<usize>());
        let _ = (Open::read(&bytes), Notification::read(&bytes).map(|n| n.to_string()), frame(&bytes, true).is_ok());
        // One bit of a sound message.
        let set = Attributes { med: Some(1), ..Attributes::local(NextHop::V4(Ipv4Addr::LOCALHOST)) };
        let mut sound = Vec::new();
        let routes = [Nlri::from(Prefix::host(Ipv4Addr::LOCALHOST))];
        pack::announce(&coding, Family::Ipv4Unicast, &set, &routes, &mut sound).expect("short");
        let at = at % sound.len();
        sound[at] ^= 1 << bit;
        if let Ok(Some((message, _))) = frame(&sound, true) {
            let _ = update::read(message.body, &coding).map(|update| update.withdrawn().count());
        }
    }
}

#[test]
fn an_end_of_rib_is_nothing_else() {
    for family in Family::ALL {
        let coding = Coding { families: Families::ALL, ..Coding::default() };
        let mut bytes = Vec::new();
        pack::end_of_rib(family, &mut bytes);
        let (message, _) = frame(&bytes, false).expect("sound").expect("whole");
        let update = update::read(message.body, &coding).expect("sound");
        assert_eq!((update.end_of_rib, update.withdrawn().count()), (Some(family), 0));
    }
}

#[test]
fn numbers_of_four_octets_pass_through_a_speaker_of_two() {
    let coding = Coding { internal: true, ..Coding::default() };
    let set = Attributes {
        as_path: AsPath::sequence(&[100, 70_000, 80_000]),
        aggregator: Some(Aggregator { number: 90_000, address: Ipv4Addr::LOCALHOST }),
        ..Attributes::local(NextHop::V4(Ipv4Addr::new(10, 0, 0, 1)))
    };
    let mut bytes = Vec::new();
    let route = Nlri::from(Prefix::new(Ipv4Addr::new(10, 0, 0, 0), 8));
    pack::announce(&coding, Family::Ipv4Unicast, &set, &[route], &mut bytes).expect("short");
    let trans = (AS_TRANS as u16).to_be_bytes();
    assert!(bytes.windows(2).filter(|window| *window == trans).count() == 3, "two of the path, one of the aggregator");
    assert_eq!(read_all(&bytes, &coding).2, [set]);
}

#[test]
fn what_a_peer_cannot_take_is_told_and_nothing_is_written() {
    let route = [Nlri::from(Prefix::new(Ipv4Addr::new(10, 0, 0, 0), 8))];
    let mut out = Vec::new();
    let v6 = Attributes::local(NextHop::new(Ipv6Addr::LOCALHOST.into()));
    let coding = Coding::default();
    assert_eq!(pack::announce(&coding, Family::Ipv4Unicast, &v6, &route, &mut out), Err(PackError::NextHop));
    let mut long = Attributes::local(NextHop::V4(Ipv4Addr::LOCALHOST));
    long.communities = (0..1_050).map(Community).collect();
    assert_eq!(pack::announce(&coding, Family::Ipv4Unicast, &long, &route, &mut out), Err(PackError::TooLong));
    assert!(out.is_empty());
    let extended = Coding { extended_messages: true, ..coding };
    assert_eq!(pack::announce(&extended, Family::Ipv4Unicast, &long, &route, &mut out), Ok(()));
    assert!(out.len() > MAX_MESSAGE);
}
