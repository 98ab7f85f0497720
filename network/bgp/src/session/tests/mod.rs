//! Two neighbours over a simulated wire with a simulated clock: connections, collisions, refusals, restarts.

mod changes;
mod restarts;

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::config::{Opening, PrefixLimit, RemoteAs, Restart};
use super::neighbour::{Action, Input, Neighbour};
use super::restart::Fate;
use super::{Config, Reason, State, Time, Way};
use crate::family::{Families, Family};
use crate::message::capability::{Capability, Role};
use crate::message::notification::{Notification, cease, code, open};
use crate::message::open::Open;
use crate::message::refresh::{RouteRefresh, Subtype};
use crate::message::{Message, frame, pack};

const LATENCY: Duration = Duration::from_millis(10);
/// How long a connection is tried that nobody answers.
const TRIED: Duration = Duration::from_secs(2);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What is on the wire.
#[derive(Clone, Debug)]
enum Passing {
    Syn,
    Connected,
    Bytes(Vec<u8>),
    Closed,
}

/// Two speakers, 0 and 1.
struct World {
    now: Time,
    sides: Vec<Neighbour>,
    /// Due, order, to whom, of his connection which, which of them, what.
    wire: Vec<(Time, u64, usize, Way, u64, Passing)>,
    order: u64,
    /// Which connection a side takes for which way's.
    view: [[Option<u64>; 2]; 2],
    connections: u64,
    /// Whether packets arrive.
    works: bool,
    /// All that each side wanted done.
    log: [Vec<Action>; 2],
}

impl World {
    fn new(one: Config, two: Config) -> World {
        World {
            now: Time::ZERO,
            sides: vec![Neighbour::new(one, false), Neighbour::new(two, false)],
            wire: Vec::new(),
            order: 0,
            view: [[None; 2]; 2],
            connections: 0,
            works: true,
            log: [Vec::new(), Vec::new()],
        }
    }

    /// Both started, and time for a session.
    fn up(one: Config, two: Config) -> World {
        let mut world = World::new(one, two);
        world.input(0, Input::Start);
        world.input(1, Input::Start);
        world.run(seconds(60));
        world
    }

    fn send(&mut self, to: usize, way: Way, connection: u64, passing: Passing, after: Duration) {
        self.order += 1;
        self.wire.push((self.now + after, self.order, to, way, connection, passing));
    }

    fn input(&mut self, side: usize, input: Input) {
        let actions = self.sides[side].step(input, self.now);
        self.act(side, actions, None);
    }

    fn act(&mut self, side: usize, actions: Vec<Action>, waiting: Option<u64>) {
        let other = 1 - side;
        for action in actions {
            self.log[side].push(action.clone());
            match action {
                Action::Connect => {
                    self.connections += 1;
                    let connection = self.connections;
                    self.view[side][Way::Outgoing as usize] = Some(connection);
                    if self.works {
                        self.send(other, Way::Incoming, connection, Passing::Syn, LATENCY);
                    } else {
                        self.send(side, Way::Outgoing, connection, Passing::Closed, TRIED);
                    }
                }
                Action::Accept => {
                    let connection = waiting.expect("one that waits");
                    self.view[side][Way::Incoming as usize] = Some(connection);
                    self.send(other, Way::Outgoing, connection, Passing::Connected, LATENCY);
                }
                Action::Refuse(bytes) => {
                    let connection = waiting.expect("one that waits");
                    for passing in [Passing::Connected, Passing::Bytes(bytes), Passing::Closed] {
                        self.send(other, Way::Outgoing, connection, passing, LATENCY);
                    }
                }
                Action::Send(way, bytes) => {
                    let connection = self.view[side][way as usize].expect("a connection");
                    if self.works {
                        self.send(other, way.other(), connection, Passing::Bytes(bytes), LATENCY);
                    }
                }
                Action::Close(way) => {
                    if let Some(connection) = self.view[side][way as usize].take()
                        && self.works
                    {
                        self.send(other, way.other(), connection, Passing::Closed, LATENCY);
                    }
                }
                _ => {}
            }
        }
    }

    fn arrive(&mut self, to: usize, way: Way, connection: u64, passing: Passing) {
        if !matches!(passing, Passing::Syn) && self.view[to][way as usize] != Some(connection) {
            return;
        }
        let now = self.now;
        match passing {
            Passing::Syn => {
                let actions = self.sides[to].step(Input::Connected(Way::Incoming), now);
                self.act(to, actions, Some(connection));
            }
            Passing::Connected => self.input(to, Input::Connected(way)),
            Passing::Closed => {
                self.view[to][way as usize] = None;
                self.input(to, Input::ConnectionLost(way));
            }
            Passing::Bytes(bytes) => {
                let extended = self.sides[to].extended(way);
                let actions = match frame(&bytes, extended) {
                    Ok(Some((frame, _))) => self.sides[to].received(way, frame, now).0,
                    Ok(None) => panic!("half a message"),
                    Err(notification) => self.sides[to].broken(way, notification, now),
                };
                self.act(to, actions, None);
            }
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.wire.iter().enumerate().min_by_key(|(_, (due, order, ..))| (*due, *order));
            let next = next.map(|(at, (due, ..))| (at, *due));
            let timer = (0..2).filter_map(|side| Some((side, self.sides[side].due()?))).min_by_key(|(_, due)| *due);
            match (next, timer) {
                (Some((at, due)), timer) if due <= end && timer.is_none_or(|(_, timer)| due <= timer) => {
                    self.now = self.now.max(due);
                    let (_, _, to, way, connection, passing) = self.wire.remove(at);
                    self.arrive(to, way, connection, passing);
                }
                (_, Some((side, due))) if due <= end => {
                    self.now = self.now.max(due);
                    self.input(side, Input::Time);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn states(&self) -> (State, State) {
        (self.sides[0].state(), self.sides[1].state())
    }

    /// The way of side 0's session.
    fn way(&self) -> Way {
        let last = self.log[0].iter().rev().find_map(|action| match action {
            Action::Up(way, _) => Some(*way),
            _ => None,
        });
        last.expect("a session")
    }

    /// The reasons for which a side's sessions ended.
    fn ends(&self, side: usize) -> Vec<(Reason, Families)> {
        let ended = |action: &Action| match action {
            Action::Down { reason, kept } => Some((reason.clone(), *kept)),
            _ => None,
        };
        self.log[side].iter().filter_map(ended).collect()
    }

    fn fates(&self, side: usize) -> Vec<Fate> {
        let fate = |action: &Action| if let Action::Stale(fate) = action { Some(*fate) } else { None };
        self.log[side].iter().filter_map(fate).collect()
    }

    /// NOTIFICATIONs that a side sent, the refusals of connections left out.
    fn notifications(&self, side: usize) -> Vec<Notification> {
        let sent = |action: &Action| match action {
            Action::Send(_, bytes) => {
                let (frame, _) = frame(bytes, true).ok()??;
                (frame.kind == crate::message::Kind::Notification).then(|| Notification::read(frame.body))?
            }
            _ => None,
        };
        self.log[side].iter().filter_map(sent).collect()
    }

    fn cut(&mut self) {
        for (side, way) in [(0, Way::Outgoing), (0, Way::Incoming), (1, Way::Outgoing), (1, Way::Incoming)] {
            if self.view[side][way as usize].take().is_some() {
                self.input(side, Input::ConnectionLost(way));
            }
        }
    }
}

fn config(host: u8, number: u32, remote: u32) -> Config {
    let mut config = Config::new(number, RemoteAs::Number(remote), Ipv4Addr::new(10, 0, 0, host));
    config.seed = host.into();
    config
}

fn pair() -> (Config, Config) {
    (config(1, 64512, 64512), config(2, 64512, 64512))
}

const BOTH_UP: (State, State) = (State::Established, State::Established);

#[test]
fn two_speakers_stay_together_for_a_day() {
    let (one, two) = pair();
    let mut world = World::up(one, two);
    assert_eq!(world.states(), BOTH_UP);
    world.run(seconds(86_400));
    assert_eq!((world.states(), world.ends(0), world.ends(1)), (BOTH_UP, vec![], vec![]));
    let negotiated = world.sides[0].negotiated().expect("a session");
    assert!(negotiated.internal && negotiated.receive.four_octet_as && negotiated.send.extended_messages);
}

#[test]
fn of_two_connections_the_one_of_the_higher_identifier_stays() {
    for (low, high) in [(1, 2), (2, 1)] {
        let world = World::up(config(low, 64512, 64512), config(high, 64512, 64512));
        assert_eq!(world.states(), BOTH_UP);
        assert_eq!(world.way(), if low < high { Way::Incoming } else { Way::Outgoing });
        let ups = world.log[0].iter().filter(|action| matches!(action, Action::Up(..))).count();
        assert_eq!((ups, world.ends(0)), (1, vec![]), "nothing was up that had to go");
        // Both closed the other one, and nobody fell back into Idle for long.
        assert_eq!(world.view[0].iter().flatten().count(), 1);
    }
}

#[test]
fn one_who_is_passive_waits_and_two_who_are_never_meet() {
    let (mut one, two) = pair();
    one.passive = true;
    let world = World::up(one.clone(), two);
    assert_eq!((world.states(), world.way()), (BOTH_UP, Way::Incoming));
    assert!(!world.log[0].contains(&Action::Connect));
    let two = Config { passive: true, ..config(2, 64512, 64512) };
    assert_eq!(World::up(one, two).states(), (State::Active, State::Active));
}

#[test]
fn silence_ends_the_session_when_the_hold_time_is_over() {
    let (one, mut two) = pair();
    two.hold_time = 9;
    let mut world = World::up(one, two);
    world.works = false;
    // He is heard every three seconds or sooner.
    world.run(seconds(5));
    assert_eq!(world.ends(0), []);
    world.run(seconds(5));
    let (reason, kept) = world.ends(0)[0].clone();
    assert_eq!(reason.to_string(), "we ended it: hold timer expired");
    // Both have the N bit (RFC 8538): what he told stays for his return.
    assert!(kept.has(Family::Ipv4Unicast));
    world.works = true;
    world.run(seconds(60));
    assert_eq!(world.states(), BOTH_UP);
}

#[test]
fn whoever_is_not_who_he_should_be_is_refused_and_told_why() {
    let refused = |one: Config, two: Config| {
        let world = World::up(one, two);
        assert!(world.states().0 < State::OpenConfirm && world.states().1 < State::OpenConfirm);
        assert!(!world.log.iter().flatten().any(|action| matches!(action, Action::Up(..))));
        let said = world.notifications(0)[0].clone();
        (said.code, said.subcode)
    };
    assert_eq!(refused(config(1, 64512, 64513), config(2, 64999, 64512)), (2, open::BAD_PEER_AS));
    assert_eq!(refused(config(1, 64512, 64512), config(1, 64512, 64512)), (2, open::BAD_IDENTIFIER));
    let role = |role, config: Config| Config { role: Some(role), ..config };
    let (one, two) = (config(1, 1, 2), config(2, 2, 1));
    let mismatch = refused(role(Role::Customer, one.clone()), role(Role::Peer, two.clone()));
    assert_eq!(mismatch, (2, open::ROLE_MISMATCH));
    let strict = Config { strict_role: true, ..role(Role::Customer, one.clone()) };
    assert_eq!(refused(strict, two.clone()), (2, open::ROLE_MISMATCH));
    let v6 = Config { families: [Family::Ipv6Unicast].into_iter().collect(), ..one.clone() };
    assert_eq!(refused(v6, two.clone()), (2, open::UNSUPPORTED_CAPABILITY));
    let fits = World::up(role(Role::Customer, one), role(Role::Provider, two));
    assert_eq!(fits.states(), BOTH_UP);
    // RFC 9234 4: inside of an AS nobody is told.
    let (inside, _) = pair();
    let told = role(Role::Customer, inside).open(Opening::First).capabilities;
    assert!(!told.iter().any(|capability| matches!(capability, Capability::Role(_))), "{told:?}");
}

#[test]
fn a_hold_time_of_one_second_and_an_identifier_of_nobody_are_not_taken() {
    let judge = |open: Open| super::negotiated::judge(&config(1, 64512, 64512), &open).map_err(|said| said.subcode);
    let id = Ipv4Addr::new(10, 0, 0, 2);
    assert_eq!(judge(Open::new(64512, 2, id, vec![])), Err(open::UNACCEPTABLE_HOLD_TIME));
    assert_eq!(judge(Open::new(64512, 90, Ipv4Addr::UNSPECIFIED, vec![])), Err(open::BAD_IDENTIFIER));
    assert_eq!(judge(Open::new(0, 90, id, vec![])), Err(open::BAD_PEER_AS));
    let plain = judge(Open::new(64512, 0, id, vec![])).expect("RFC 4271's own");
    assert_eq!((plain.hold_time, plain.families(), plain.receive.four_octet_as), (None, Families::IPV4, false));
    // RFC 6286: of another AS he may have our identifier.
    let other = Config { remote_as: RemoteAs::External, ..config(1, 64512, 0) };
    let same = Open::new(70_000, 90, other.identifier, vec![Capability::FourOctetAs(70_000)]);
    assert_eq!(super::negotiated::judge(&other, &same).map(|n| n.number), Ok(70_000));
}

#[test]
fn failures_are_rested_from_for_longer_and_longer() {
    let mut world = World::new(config(1, 64512, 64513), config(2, 64999, 64512));
    world.input(0, Input::Start);
    world.input(1, Input::Start);
    let mut attempts = Vec::new();
    for _ in 0..20 {
        world.run(seconds(30));
        attempts.push(world.notifications(0).iter().filter(|said| said.subcode == open::BAD_PEER_AS).count());
    }
    let (early, late) = (attempts[1], attempts[19] - attempts[15]);
    assert!(early >= 2 && late <= 4, "{attempts:?}");
}

#[test]
fn a_stop_says_why_and_nothing_of_his_is_kept() {
    let (one, two) = pair();
    let mut world = World::up(one, two);
    world.input(0, Input::Stop("new disks".into()));
    world.run(seconds(1));
    let (reason, kept) = world.ends(1)[0].clone();
    let words = "the neighbour ended it: hard reset: cease: administrative shutdown: \"new disks\"";
    assert_eq!((reason.to_string(), kept), (words.to_owned(), Families::NONE));
    world.run(seconds(600));
    assert_eq!(world.states().0, State::Idle, "until it is started");
    world.input(0, Input::Start);
    world.run(seconds(60));
    assert_eq!(world.states(), BOTH_UP);
}

#[test]
fn too_many_prefixes_end_the_session_for_as_long_as_the_limit_says() {
    let (mut one, two) = pair();
    one.prefix_limits[0] = Some(PrefixLimit { most: 100, restart: Some(seconds(300)) });
    let mut world = World::up(one, two);
    world.input(0, Input::Prefixes(Family::Ipv4Unicast, 100));
    assert_eq!(world.ends(0), []);
    world.input(0, Input::Prefixes(Family::Ipv4Unicast, 101));
    world.run(seconds(200));
    assert!(world.states().0 == State::Idle);
    let inner = world.notifications(0).last().expect("one").inner();
    assert_eq!((inner.subcode, inner.data), (cease::MAXIMUM_PREFIXES, vec![0, 1, 1, 0, 0, 0, 100]));
    assert_eq!(world.ends(0)[0].1, Families::NONE);
    world.run(seconds(400));
    assert_eq!(world.states(), BOTH_UP);
}

#[test]
fn one_of_whom_nobody_said_how_much_he_may_tell_may_not_tell_everything() {
    let (one, two) = pair();
    let mut world = World::up(one, two);
    world.input(0, Input::Prefixes(Family::Ipv4Unicast, 50_000));
    assert_eq!(world.states(), BOTH_UP);
    world.input(0, Input::Prefixes(Family::Ipv4Unicast, 50_001));
    world.run(seconds(400));
    assert_eq!(world.states().0, State::Idle);
    world.run(seconds(400));
    assert_eq!(world.states(), BOTH_UP);
}

#[test]
fn messages_out_of_turn_are_an_error_of_the_state_machine() {
    let (one, two) = pair();
    let keepalive = Message::Keepalive.write();
    let mut update = Vec::new();
    pack::end_of_rib(Family::Ipv4Unicast, &mut update);
    let open = Message::Open(two.open(Opening::First)).write();
    // OpenSent: of side 0 alone, with an answer that is none.
    let refresh = RouteRefresh { family: Family::Ipv4Unicast.wire(), subtype: Subtype::Request };
    for wrong in [&keepalive, &update, &Message::RouteRefresh(refresh).write()] {
        let mut alone = Neighbour::new(one.clone(), false);
        alone.step(Input::Start, Time::ZERO);
        alone.step(Input::Connected(Way::Outgoing), Time::ZERO);
        assert_eq!(alone.state(), State::OpenSent);
        let (frame, _) = frame(wrong, false).expect("sound").expect("whole");
        let actions = alone.received(Way::Outgoing, frame, Time::ZERO).0;
        // RFC 6608: its data is the type of the message.
        let said = Notification::new(code::FINITE_STATE_MACHINE, 1, vec![wrong[18]]);
        let way = Way::Outgoing;
        let sent = Action::Send(way, Message::Notification(said.clone()).write());
        assert_eq!(actions, [sent, Action::Close(way), Action::Failed(Reason::Sent(said))]);
    }
    // Established: an OPEN.
    let mut world = World::up(one, two);
    let (frame, _) = frame(&open, false).expect("sound").expect("whole");
    let way = world.way();
    let actions = world.sides[0].received(way, frame, world.now).0;
    let said = Notification::new(code::FINITE_STATE_MACHINE, 3, vec![1]);
    assert_eq!(actions[0], Action::Send(way, Message::Notification(said).write()));
    assert_eq!(world.states().0, State::Idle);
}

#[test]
fn delayed_opens_meet() {
    let (mut one, mut two) = pair();
    one.delay_open = Some(seconds(2));
    two.delay_open = Some(seconds(3));
    assert_eq!(World::up(one, two).states(), BOTH_UP);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever happens to the wire, two speakers are together a few minutes after it has stopped happening.
    #[test]
    fn speakers_find_each_other_again(
        seeds in any::<[u64; 2]>(),
        passive in 0..3usize,
        external in any::<bool>(),
        blows in proptest::collection::vec((0..5u8, 1..200_000u64), 0..25),
    ) {
        let number = if external { 64513 } else { 64512 };
        let mut configs = [config(1, 64512, number), config(2, number, 64512)];
        for (at, (config, seed)) in configs.iter_mut().zip(seeds).enumerate() {
            config.seed = seed;
            config.passive = passive == at;
        }
        let [one, two] = configs;
        let mut world = World::new(one, two.clone());
        world.input(0, Input::Start);
        world.input(1, Input::Start);
        for (blow, millis) in blows {
            match blow {
                0 => world.cut(),
                1 => world.works = !world.works,
                2 => {
                    world.view[1] = [None; 2];
                    world.sides[1] = Neighbour::new(two.clone(), true);
                    world.input(1, Input::Start);
                }
                3 => {
                    world.input(0, Input::Stop("again".into()));
                    world.input(0, Input::Start);
                }
                _ => {}
            }
            world.run(Duration::from_millis(millis));
        }
        world.works = true;
        world.run(seconds(400));
        prop_assert_eq!(world.states(), BOTH_UP);
        prop_assert_eq!(world.view[0].iter().flatten().count(), 1, "one connection, not two");
        prop_assert_eq!(world.view[0].iter().flatten().count(), world.view[1].iter().flatten().count());
    }
}
