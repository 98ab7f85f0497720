//! Restarts between two neighbours: what is kept, for how long, and what ends that (RFC 4724, 7313, 8538, 9494).

use super::*;

#[test]
fn routes_outlive_a_restart_until_all_are_told_again() {
    let (one, two) = pair();
    let mut world = World::up(one, two.clone());
    let before = world.log[0].len();
    // Side 1 is killed and comes back: its kernel has its routes still.
    world.cut();
    world.sides[1] = Neighbour::new(two, true);
    world.input(1, Input::Start);
    world.run(seconds(60));
    assert_eq!(world.states(), BOTH_UP);
    assert_eq!(world.ends(0), [(Reason::ConnectionLost, Families::IPV4)]);
    assert!(!world.log[0][before..].contains(&Action::Stale(Fate::Swept(Family::Ipv4Unicast))), "nothing goes yet");
    let mut bytes = Vec::new();
    pack::end_of_rib(Family::Ipv4Unicast, &mut bytes);
    let way = world.way();
    let actions = {
        let (frame, _) = frame(&bytes, false).expect("sound").expect("whole");
        world.sides[0].received(way, frame, world.now).0
    };
    let swept = Action::Stale(Fate::Swept(Family::Ipv4Unicast));
    assert_eq!(actions, [swept, Action::EndOfRib(Family::Ipv4Unicast)]);
}

#[test]
fn routes_outlive_a_connection_that_breaks_with_nobody_restarting() {
    let (one, two) = pair();
    let mut world = World::up(one, two);
    world.cut();
    world.run(seconds(60));
    // He was there all the time, and so is what he forwards: nothing goes before he has told all again.
    assert_eq!((world.states(), world.fates(0), world.fates(1)), (BOTH_UP, vec![], vec![]));
}

#[test]
fn routes_of_one_who_forgot_them_go_when_he_is_back() {
    let (one, two) = pair();
    let mut world = World::up(one, two.clone());
    world.cut();
    // Not restarted in the sense of RFC 4724: the forwarding bits are not set.
    world.sides[1] = Neighbour::new(two, false);
    world.input(1, Input::Start);
    world.run(seconds(60));
    assert_eq!((world.states(), world.fates(0)), (BOTH_UP, vec![Fate::Swept(Family::Ipv4Unicast)]));
}

#[test]
fn routes_of_one_who_stays_away_become_a_last_resort_and_then_nothing() {
    let restart = Some(Restart { time: 30, long_lived: 600, ..Restart::default() });
    let (one, two) = pair();
    let mut world = World::up(Config { restart, ..one }, Config { restart, ..two });
    world.works = false;
    world.cut();
    world.run(seconds(29));
    assert_eq!((world.fates(0), world.sides[0].is_awaited()), (vec![], true));
    world.run(seconds(2));
    assert_eq!(world.fates(0), [Fate::LongLived(Family::Ipv4Unicast)]);
    assert!(!world.sides[0].is_awaited(), "another may be there");
    world.run(seconds(600));
    assert_eq!(world.fates(0)[1..], [Fate::Swept(Family::Ipv4Unicast)]);
}

#[test]
fn one_who_connects_again_has_restarted() {
    let (one, two) = pair();
    let mut world = World::up(one, two.clone());
    // Side 1 forgets everything, and nobody is told.
    world.view[1] = [None; 2];
    world.sides[1] = Neighbour::new(two, true);
    world.input(1, Input::Start);
    world.run(seconds(5));
    assert_eq!((world.states(), world.ends(0)), (BOTH_UP, vec![(Reason::Replaced, Families::IPV4)]));
}

#[test]
fn what_is_stale_when_a_session_goes_again_goes_first() {
    // RFC 4724 4.2: of consecutive restarts, before he has told all.
    let (one, two) = pair();
    let mut world = World::up(one, two);
    world.cut();
    world.run(seconds(60));
    assert_eq!((world.states(), world.fates(0)), (BOTH_UP, vec![]));
    let before = world.log[0].len();
    world.cut();
    let news: Vec<&Action> = world.log[0][before..].iter().filter(|news| !matches!(news, Action::Close(_))).collect();
    let [first, second, ..] = news[..] else { panic!("{news:?}") };
    assert_eq!(first, &Action::Stale(Fate::Swept(Family::Ipv4Unicast)));
    assert!(matches!(second, Action::Down { kept, .. } if kept.has(Family::Ipv4Unicast)), "{second:?}");
}

#[test]
fn long_lived_routes_have_one_time_however_often_he_comes_and_goes() {
    // RFC 9494 4.2: neither deleted sooner nor kept longer, until he has told all.
    let restart = Some(Restart { time: 30, long_lived: 600, ..Restart::default() });
    let (one, two) = pair();
    let mut world = World::up(Config { restart, ..one }, Config { restart, ..two });
    world.works = false;
    world.cut();
    world.run(seconds(100));
    assert_eq!(world.fates(0), [Fate::LongLived(Family::Ipv4Unicast)]);
    world.works = true;
    world.run(seconds(100));
    assert_eq!(world.states(), BOTH_UP);
    world.works = false;
    world.cut();
    world.run(seconds(40));
    assert_eq!(world.fates(0), [Fate::LongLived(Family::Ipv4Unicast); 2], "they are still there");
    // It began after 30 s, and is over after 630: 240 have gone.
    world.run(seconds(389));
    assert_eq!(world.fates(0).len(), 2);
    world.run(seconds(3));
    assert_eq!(world.fates(0)[2..], [Fate::Swept(Family::Ipv4Unicast)]);
}

#[test]
fn long_lived_routes_go_when_he_forwards_by_them_no_more() {
    let restart = Some(Restart { time: 30, long_lived: 600, ..Restart::default() });
    let (one, two) = pair();
    let (one, two) = (Config { restart, ..one }, Config { restart, ..two });
    let negotiated = |forwarding: bool| {
        let mut open = two.open(Opening::Another);
        for capability in &mut open.capabilities {
            if let Capability::LongLived(all) = capability {
                all.iter_mut().for_each(|entry| entry.forwarding = forwarding);
            }
        }
        crate::session::negotiated::judge(&one, &open).expect("an agreement")
    };
    for (forwarding, fates) in [(true, vec![]), (false, vec![Fate::Swept(Family::Ipv4Unicast)])] {
        let mut kept = crate::session::restart::Kept::default();
        kept.lost(&negotiated(true), Families::IPV4, Time::ZERO);
        kept.expired(seconds(30));
        // The bit of RFC 4724 is set in both.
        assert_eq!(kept.back(&negotiated(forwarding), one.restart.as_ref(), seconds(40)), fates);
    }
}

#[test]
fn one_whose_routes_never_outlive_him_has_not_restarted_because_he_connects() {
    // RFC 4724 5: a capability that names no family only says that he helps others.
    let (one, two) = pair();
    let restart = Some(Restart { forwarding: Families::NONE, ..Restart::default() });
    let two = Config { restart, ..two };
    let mut world = World::up(one, two.clone());
    world.view[1] = [None; 2];
    world.sides[1] = Neighbour::new(two, false);
    world.input(1, Input::Start);
    world.run(seconds(5));
    assert_eq!((world.states().0, world.ends(0)), (State::Established, vec![]));
}

#[test]
fn a_refresh_begins_after_all_was_told_and_ends_once() {
    let (one, two) = pair();
    let mut world = World::up(one, two);
    let way = world.way();
    let mut hear = |bytes: &[u8]| {
        let (frame, _) = frame(bytes, false).expect("sound").expect("whole");
        world.sides[0].received(way, frame, world.now).0
    };
    let family = Family::Ipv4Unicast;
    let message = |subtype| Message::RouteRefresh(RouteRefresh { family: family.wire(), subtype }).write();
    let (begin, end) = (message(Subtype::Begin), message(Subtype::End));
    assert_eq!((hear(&end), hear(&begin), hear(&end)), (vec![], vec![], vec![]), "before End-of-RIB");
    let mut end_of_rib = Vec::new();
    pack::end_of_rib(family, &mut end_of_rib);
    hear(&end_of_rib);
    assert_eq!(hear(&end), [], "without a beginning");
    assert_eq!(hear(&begin), [Action::RefreshBegins(family)]);
    assert_eq!(hear(&end), [Action::Stale(Fate::Swept(family))]);
    assert_eq!(hear(&end), []);
}

#[test]
fn nothing_is_kept_of_one_whom_bfd_has_lost() {
    let (one, two) = pair();
    let mut world = World::up(one, two);
    world.input(0, Input::BfdDown);
    let (reason, kept) = world.ends(0)[0].clone();
    assert_eq!((reason.to_string(), kept), ("we ended it: hard reset: cease: BFD down".to_owned(), Families::NONE));
}
