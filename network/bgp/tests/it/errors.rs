//! RFC 7606, attribute by attribute: what a malformed one costs, and what it doesn't.

use bgp::attribute::table::{ATTRIBUTES, Approach, Category, From, Length, code, flag};
use bgp::family::{Families, Family};
use bgp::message::Coding;
use bgp::message::notification::{self, Notification};
use bgp::message::update::{self, Update};

const PREFIX: [u8; 4] = [24, 10, 1, 2];

fn internal() -> Coding {
    Coding { internal: true, four_octet_as: true, families: Families::ALL, ..Coding::default() }
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, code, value.len() as u8], value].concat()
}

/// The three that must be there.
fn mandatory() -> Vec<Vec<u8>> {
    vec![
        attribute(0x40, code::ORIGIN, &[0]),
        attribute(0x40, code::AS_PATH, &[2, 1, 0, 0, 0xfc, 1]),
        attribute(0x40, code::NEXT_HOP, &[10, 0, 0, 9]),
    ]
}

fn body(withdrawn: &[u8], attributes: &[Vec<u8>], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
    [&length(withdrawn)[..], withdrawn, &length(&attributes), &attributes, nlri].concat()
}

/// The body with the mandatory attributes, this one instead of or beside them, and one route.
fn with(wrong: Vec<u8>) -> Vec<u8> {
    let mut all: Vec<Vec<u8>> = mandatory().into_iter().filter(|sound| sound[1] != wrong[1]).collect();
    all.push(wrong);
    body(&[], &all, &PREFIX)
}

fn count(update: &Update<'_>) -> (usize, usize) {
    let withdrawn = update.withdrawn().map(|list| list.iter().count()).sum();
    (withdrawn, update.announced().map(|(_, list)| list.iter().count()).sum())
}

fn strongest(update: &Update<'_>) -> Option<Approach> {
    update.faults.iter().map(|fault| fault.approach).max()
}

fn reset(bytes: &[u8], coding: &Coding) -> Notification {
    update::read(bytes, coding).expect_err("the session ends")
}

#[test]
fn every_row_of_the_table_costs_what_it_says() {
    for row in ATTRIBUTES.iter().filter(|row| !matches!(row.code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI)) {
        let wrong: &[u8] = match row.length {
            Length::Exactly(0) => &[1],
            Length::Any => &[9, 1, 0, 0, 0, 1],
            _ => &[1, 2, 3, 4, 5],
        };
        let coding = Coding { four_octet_as: row.from != From::TwoOctet, ..internal() };
        let mut bytes = with(attribute(row.category.flags(), row.code, wrong));
        if row.from == From::TwoOctet {
            // A path of two octets.
            let path = attribute(0x40, code::AS_PATH, &[2, 1, 0xfc, 1]);
            let others = [attribute(0x40, code::ORIGIN, &[0]), path, attribute(0x40, code::NEXT_HOP, &[10, 0, 0, 9])];
            bytes = body(&[], &[&others[..], &[attribute(row.category.flags(), row.code, wrong)]].concat(), &PREFIX);
        }
        let update = update::read(&bytes, &coding).expect("no reset");
        assert_eq!(strongest(&update), Some(row.malformed), "{}", row.name);
        let withdrawn = row.malformed != Approach::AttributeDiscard;
        let expected = if withdrawn { (1, 0) } else { (0, 1) };
        assert_eq!(update.treated_as_withdraw(), withdrawn, "{}", row.name);
        assert_eq!(count(&update), expected, "{}", row.name);
    }
}

#[test]
fn wrong_flags_withdraw_the_routes() {
    for row in ATTRIBUTES.iter().filter(|row| row.category != Category::NonTransitive) {
        let flags = row.category.flags() ^ flag::OPTIONAL;
        let bytes = with(attribute(flags, row.code, &[0; 4]));
        let update = update::read(&bytes, &internal()).expect("no reset");
        assert_eq!(count(&update), (1, 0), "{}", row.name);
    }
}

#[test]
fn what_is_for_this_as_alone_is_left_out_from_others() {
    let external = Coding { internal: false, ..internal() };
    for code in [code::LOCAL_PREF, code::ORIGINATOR_ID, code::CLUSTER_LIST] {
        let flags = if code == code::LOCAL_PREF { 0x40 } else { 0x80 };
        // Malformed as well: nobody looks.
        let bytes = with(attribute(flags, code, &[1, 2, 3]));
        let update = update::read(&bytes, &external).expect("no reset");
        assert_eq!((count(&update), strongest(&update)), ((0, 1), Some(Approach::AttributeDiscard)), "{code}");
        assert_eq!((update.attributes.local_preference, update.attributes.originator_id), (None, None));
    }
}

#[test]
fn what_is_missing_withdraws_the_routes() {
    for missing in 0..3 {
        let mut all = mandatory();
        all.remove(missing);
        let bytes = body(&[], &all, &PREFIX);
        let update = update::read(&bytes, &internal()).expect("no reset");
        assert_eq!(count(&update), (1, 0), "{missing}");
    }
    let undefined = update::read(&with(attribute(0x40, code::ORIGIN, &[3])), &internal()).map(|u| count(&u));
    assert_eq!(undefined, Ok((1, 0)));
    for address in [[0, 0, 0, 0], [224, 0, 0, 5], [255; 4]] {
        let update = update::read(&with(attribute(0x40, code::NEXT_HOP, &address)), &internal()).map(|u| count(&u));
        assert_eq!(update, Ok((1, 0)), "{address:?}");
    }
}

#[test]
fn an_attribute_twice_counts_once_and_a_reach_twice_ends_the_session() {
    let mut all = mandatory();
    all.push(attribute(0x80, code::MULTI_EXIT_DISC, &[0, 0, 0, 1]));
    all.push(attribute(0x80, code::MULTI_EXIT_DISC, &[0, 0, 0, 2]));
    let bytes = body(&[], &all, &PREFIX);
    let update = update::read(&bytes, &internal()).expect("no reset");
    assert_eq!((update.attributes.med, count(&update)), (Some(1), (0, 1)));
    let unreach = attribute(0x80, code::MP_UNREACH_NLRI, &[0, 2, 1]);
    let twice = reset(&body(&[], &[unreach.clone(), unreach], &[]), &internal());
    assert_eq!((twice.code, twice.subcode), (3, 1));
}

#[test]
fn attributes_that_are_cut_off_withdraw_what_the_total_length_leaves() {
    let mut all = mandatory();
    all.push(vec![0x80, code::MULTI_EXIT_DISC, 200, 1]);
    let bytes = body(&[], &all, &PREFIX);
    assert_eq!(update::read(&bytes, &internal()).map(|update| count(&update)), Ok((1, 0)));
}

#[test]
fn lengths_that_lie_and_prefixes_that_are_none_end_the_session() {
    let said = |bytes: &[u8]| (reset(bytes, &internal()).code, reset(bytes, &internal()).subcode);
    let list = (3, notification::update::MALFORMED_ATTRIBUTE_LIST);
    assert_eq!(said(&[0, 9, 0, 0]), list);
    assert_eq!(said(&[0, 0, 0, 9, 1]), list);
    assert_eq!(said(&body(&[33, 1, 2, 3, 4, 5], &[], &[])), (3, notification::update::INVALID_NETWORK));
    assert_eq!(said(&body(&[], &mandatory(), &[24, 10])), (3, notification::update::INVALID_NETWORK));
    // Errors, and no route that could be withdrawn for them (5.2); routes that go anyway change nothing.
    assert_eq!(said(&body(&[], &[attribute(0x40, code::ORIGIN, &[9])], &[])), list);
    assert_eq!(said(&body(&PREFIX, &[attribute(0x40, code::ORIGIN, &[9])], &[])), list);
    let unreach = attribute(0x80, code::MP_UNREACH_NLRI, &[0, 2, 1, 16, 0xfd, 0]);
    assert_eq!(said(&body(&[], &[unreach, attribute(0x40, code::ORIGIN, &[9])], &[])), list);
    // What is discarded is no error of this kind.
    let discarded = body(&PREFIX, &[attribute(0x40, code::ATOMIC_AGGREGATE, &[1])], &[]);
    assert_eq!(update::read(&discarded, &internal()).map(|update| count(&update)), Ok((1, 0)));
}

#[test]
fn a_well_known_attribute_that_nobody_knows_ends_the_session_and_says_which() {
    let odd = attribute(0x40, 99, &[1, 2]);
    let said = reset(&with(odd.clone()), &internal());
    assert_eq!((said.code, said.subcode, said.data), (3, 2, odd));
}

#[test]
fn unknown_attributes_are_kept_when_they_are_transitive() {
    let kept = update::read(&with(attribute(0xc0, 99, b"abc")), &internal()).expect("fine").attributes.unknown;
    assert_eq!((kept.len(), kept[0].flags, &kept[0].value[..]), (1, 0xe0, &b"abc"[..]));
    let left = update::read(&with(attribute(0x80, 99, b"abc")), &internal()).expect("fine").attributes.unknown;
    assert!(left.is_empty());
}

#[test]
fn what_was_passed_on_without_being_understood_says_so_for_ever() {
    // RFC 4271 5: the Partial bit is never cleared.
    let communities = attribute(0xe0, code::COMMUNITIES, &[0xfc, 0, 0, 1]);
    let bytes = with(communities.clone());
    let set = update::read(&bytes, &internal()).expect("fine").attributes;
    let mut out = Vec::new();
    let prefix = "10.0.0.0/8".parse().expect("a prefix");
    let route = bgp::message::nlri::Nlri { prefix, path_id: 0 };
    bgp::message::pack::announce(&internal(), Family::Ipv4Unicast, &set, &[route], &mut out).expect("room");
    assert!(out.windows(communities.len()).any(|window| window == communities), "{out:x?}");
    let again = update::read(&out[19..], &internal()).expect("fine").attributes;
    assert_eq!(again, set);
}

#[test]
fn a_malformed_family_goes_alone_and_the_last_one_takes_the_session() {
    // A next hop of five bytes.
    let reach = attribute(0x80, code::MP_REACH_NLRI, &[0, 2, 1, 5, 1, 2, 3, 4, 5, 0, 64, 1, 2, 3, 4, 5, 6, 7, 8]);
    let mut all = mandatory();
    all.push(reach.clone());
    let bytes = body(&[], &all, &PREFIX);
    let update = update::read(&bytes, &internal()).expect("the other family stands");
    assert!(update.disabled.has(Family::Ipv6Unicast) && !update.disabled.has(Family::Ipv4Unicast));
    let alone = Coding { families: [Family::Ipv6Unicast].into_iter().collect(), ..internal() };
    let said = reset(&bytes, &alone);
    assert_eq!((said.subcode, said.data), (notification::update::OPTIONAL_ATTRIBUTE, reach));
    // Of a family that is not carried nothing is read.
    let v4 = Coding { families: Families::IPV4, ..internal() };
    assert_eq!(update::read(&bytes, &v4).map(|update| count(&update)), Ok((0, 1)));
}

#[test]
fn wrong_flags_of_a_reach_or_unreach_cost_its_family() {
    // RFC 7606 5.3: what stands in them cannot be told.
    for (code, value) in [
        (code::MP_UNREACH_NLRI, &[0, 2, 1, 16, 0xfd, 0][..]),
        (code::MP_REACH_NLRI, &[0, 2, 1, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 16, 0xfd, 0]),
    ] {
        let bytes = with(attribute(0xc0, code, value));
        let update = update::read(&bytes, &internal()).expect("the other family stands");
        assert!(update.disabled.has(Family::Ipv6Unicast) && update.treated_as_withdraw(), "{code}");
        assert_eq!(count(&update), (1, 0), "{code}");
        let alone = Coding { families: [Family::Ipv6Unicast].into_iter().collect(), ..internal() };
        let said = reset(&bytes, &alone);
        assert_eq!((said.subcode, said.data), (notification::update::OPTIONAL_ATTRIBUTE, attribute(0xc0, code, value)));
    }
}

#[test]
fn no_as_has_the_number_0() {
    // RFC 7607: a path with it is malformed, and so is an aggregator, which is only left out.
    let path = update::read(&with(attribute(0x40, code::AS_PATH, &[2, 1, 0, 0, 0, 0])), &internal()).map(|u| count(&u));
    assert_eq!(path, Ok((1, 0)));
    let bytes = with(attribute(0xc0, code::AGGREGATOR, &[0, 0, 0, 0, 10, 0, 0, 1]));
    let update = update::read(&bytes, &internal()).expect("no reset");
    assert_eq!((count(&update), update.attributes.aggregator), ((0, 1), None));
}

#[test]
fn a_confederation_s_segments_are_nothing_of_ours() {
    // RFC 5065 5, from whomever: this speaker is in none.
    for coding in [internal(), Coding { internal: false, ..internal() }] {
        for kind in [3, 4] {
            let path = attribute(0x40, code::AS_PATH, &[kind, 1, 0, 0, 0xfc, 1, 2, 1, 0, 0, 0xfc, 1]);
            assert_eq!(update::read(&with(path), &coding).map(|update| count(&update)), Ok((1, 0)), "{kind}");
        }
    }
}

#[test]
fn a_next_hop_without_routes_of_its_own_is_not_looked_at() {
    // RFC 4760 3: some send 0.0.0.0 beside the next hop of an MP_REACH_NLRI.
    let reach = [&[0, 2, 1, 16, 0xfd][..], &[0; 14], &[9, 0, 16, 0xfd, 0]].concat();
    let mut all = mandatory();
    all[2] = attribute(0x40, code::NEXT_HOP, &[0; 4]);
    all.push(attribute(0x80, code::MP_REACH_NLRI, &reach));
    let bytes = body(&[], &all, &[]);
    let update = update::read(&bytes, &internal()).expect("no reset");
    assert_eq!((count(&update), update.faults.len()), ((0, 1), 0));
    let bytes = body(&[], &all, &PREFIX);
    assert_eq!(update::read(&bytes, &internal()).map(|update| count(&update)), Ok((2, 0)), "with them it is");
}
