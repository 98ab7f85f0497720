//! What is changed while a session is there, and what ends one that is stuck.

use super::*;

#[test]
fn another_configuration_is_another_session_soon() {
    let (one, two) = pair();
    let mut world = World::up(one.clone(), two);
    let wanted = Config { hold_time: 30, ..one };
    let now = world.now;
    let actions = world.sides[0].reconfigure(wanted.clone(), now);
    world.act(0, actions, None);
    assert_eq!(world.notifications(0).last().map(|said| said.subcode), Some(cease::CONFIGURATION_CHANGE));
    world.run(seconds(20));
    assert_eq!(world.states(), BOTH_UP);
    let hold = |side: usize| world.sides[side].negotiated().and_then(|negotiated| negotiated.hold_time);
    assert_eq!((hold(0), hold(1)), (Some(seconds(30)), Some(seconds(30))));
    // Both have the N bit, and our forwarding went on: what we told stays with him meanwhile.
    let kept: Vec<Families> = world.ends(1).into_iter().map(|(_, kept)| kept).collect();
    assert_eq!(kept, [Families::IPV4]);
    let swept = world.log[1].iter().any(|action| matches!(action, Action::Stale(Fate::Swept(_))));
    assert!(!swept, "our OPEN says that routes were forwarded meanwhile");
}

#[test]
fn an_attempt_under_way_begins_anew_too() {
    let (one, two) = pair();
    let mut world = World::new(one.clone(), two);
    world.works = false;
    world.input(0, Input::Start);
    assert_eq!(world.log[0], [Action::Connect]);
    let actions = world.sides[0].reconfigure(one, Time::ZERO);
    assert_eq!(actions, [Action::Close(Way::Outgoing)], "its socket is as it was wanted before");
    world.act(0, actions, None);
    world.run(seconds(2));
    assert_eq!(world.log[0].iter().filter(|action| **action == Action::Connect).count(), 2);
}

#[test]
fn who_is_not_wanted_is_not_begun_with_because_something_changed() {
    let (one, two) = pair();
    let mut world = World::new(one.clone(), two);
    let actions = world.sides[0].reconfigure(one, Time::ZERO);
    assert_eq!((actions, world.sides[0].due()), (vec![], None));
}

#[test]
fn one_who_takes_nothing_is_given_up() {
    let (one, two) = pair();
    let mut world = World::up(one, two);
    world.input(0, Input::SendHoldTimerExpires);
    let reasons: Vec<String> = world.ends(0).into_iter().map(|(reason, _)| reason.to_string()).collect();
    assert_eq!(reasons, ["we ended it: send hold timer expired"]);
    assert_eq!(world.notifications(0).last().map(|said| said.code), Some(code::SEND_HOLD_TIMER_EXPIRED));
}

#[test]
fn a_neighbour_is_heard_of_as_often_as_he_asks_but_not_less_than_the_hold_time_needs() {
    let count = |keepalive: Option<Duration>| {
        let (one, two) = pair();
        let mut world = World::up(Config { keepalive, ..one }, two);
        world.log[0].clear();
        world.run(seconds(900));
        world.log[0].len()
    };
    let (usual, often, seldom) = (count(None), count(Some(seconds(5))), count(Some(seconds(80))));
    assert!((30..=40).contains(&usual) && (180..=240).contains(&often), "{usual} {often}");
    assert_eq!(seldom, usual);
}

#[test]
fn attempts_that_come_to_nothing_are_told_with_their_reason() {
    let world = World::up(config(1, 64512, 64513), config(2, 64999, 64512));
    let told = world.log[0].iter().find_map(|action| match action {
        Action::Failed(reason) => Some(reason.to_string()),
        _ => None,
    });
    assert_eq!(told.as_deref(), Some("we ended it: OPEN message error: bad peer AS"));
    // Where one connection of two is enough, nothing has failed.
    let (one, two) = pair();
    let passive = World::up(Config { passive: true, ..one }, two);
    assert_eq!(passive.states(), BOTH_UP);
    assert!(!passive.log.iter().flatten().any(|action| matches!(action, Action::Failed(_))), "{:?}", passive.log);
}

/// He doesn't listen, and connects: there must be a moment at which he is taken.
#[test]
fn one_who_cannot_be_reached_is_met_when_he_connects() {
    let mut here = Neighbour::new(config(1, 64512, 64513), false);
    let begun = here.step(Input::Start, seconds(0));
    assert_eq!(begun, [Action::Connect]);
    let failed = here.step(Input::ConnectionLost(Way::Outgoing), seconds(0));
    assert!(failed.contains(&Action::Failed(Reason::ConnectionFailed)), "{failed:?}");
    assert_eq!(here.state(), State::Active);
    let met = here.clone().step(Input::Connected(Way::Incoming), seconds(1));
    assert_eq!(met[0], Action::Accept);
    // Nor does ours end its attempts.
    let again = here.due().expect("a timer");
    assert!(again <= seconds(5));
    assert_eq!(here.step(Input::Time, again), [Action::Connect]);
}
