//! Routes over the end of a session and in a refresh (RFC 4724, 7313, 9494), and the bound of what one neighbour has here.

use super::*;

#[test]
fn stale_routes_stay_until_they_are_swept_and_long_lived_ones_are_the_last_resort() {
    let mut world = World::new();
    let long = |config: &mut Config| config.restart = Some(Restart { long_lived: 600, ..Restart::default() });
    let (a, b) = (world.plain(2, 1), world.plain(3, 2));
    let (able, unable) = (world.add(4, OWN, |_| (), long), world.plain(5, OWN));
    world.announce(a, 0, &set(&[1]));
    world.announce(a, 1, &set(&[1]));
    let mut gone = set(&[1]);
    gone.add_community(Community::NO_LLGR);
    world.announce(a, 2, &gone);
    world.announce(b, 1, &set(&[2, 2, 2]));
    world.settle();
    world.told.remove(&a);
    world.rib.down(a, Families::IPV4);
    assert_eq!(world.settle(), [], "nothing moves");
    // Judged again while he is away: as before.
    let own_addresses = [Some(address(1).into()), Some("fd00::1".parse().expect("an address"))];
    let config = PeerConfig { own_addresses, ..PeerConfig::new(Source::External, address(2).into(), OWN) };
    assert!(world.rib.best(&prefix(0)).is_some_and(|path| path.stale && path.peer == a));
    world.rib.fate(a, Fate::LongLived(V4));
    world.settle();
    assert!(world.rib.best(&prefix(1)).is_some_and(|path| path.peer == b && path.why == Why::Stale));
    assert!(world.told(able, 0).is_some_and(|set| set.has(Community::LLGR_STALE)));
    assert!(world.told(unable, 0).is_none(), "he would take it for fresh");
    world.rib.reconfigure(a, config);
    world.settle();
    assert!(world.told(able, 0).is_some_and(|set| set.has(Community::LLGR_STALE)), "still");
    assert!(world.told(unable, 0).is_none(), "still");
    assert!(world.rib.paths(&prefix(2)).is_empty());
    // Back: what is told again is fresh, the rest goes with End-of-RIB.
    world.session(a, 2, 1, |_| ());
    world.announce(a, 1, &set(&[1]));
    world.rib.fate(a, Fate::Swept(V4));
    world.settle();
    assert!(world.rib.best(&prefix(1)).is_some_and(|path| path.peer == a && !path.stale));
    assert!(world.rib.paths(&prefix(0)).is_empty() && world.told(able, 0).is_none());
    assert_eq!(world.rib.told(a, V4), 1);
}

#[test]
fn what_others_keep_is_told_to_those_who_know_what_that_is() {
    // RFC 9494 4.3: routes that came with LLGR_STALE, and no filter takes it away.
    let clear: Filter = serde_saphyr::from_str(
        "name: clear
rules:
  - set: {communities: {clear: true}}
    action: accept
",
    )
    .expect("a filter");
    let mut world = World::new();
    let long = |config: &mut Config| config.restart = Some(Restart { long_lived: 600, ..Restart::default() });
    let from = world.add(2, 1, |_| (), long);
    let able = world.add(3, OWN, |config| config.export = Arc::new(clear), long);
    let unable = world.plain(4, OWN);
    let mut kept = set(&[1]);
    kept.add_community(Community::LLGR_STALE);
    world.announce(from, 0, &kept);
    world.settle();
    assert!(world.told(able, 0).is_some_and(|set| set.has(Community::LLGR_STALE)));
    assert!(world.told(unable, 0).is_none());
    // From one with whom nobody speaks of it, it is a community as any other.
    let plain = world.plain(5, 5);
    world.announce(plain, 1, &Attributes { as_path: AsPath::sequence(&[5]), ..kept });
    world.settle();
    assert!(world.told(unable, 1).is_some());
}

#[test]
fn a_filter_may_say_that_routes_are_not_to_be_kept() {
    let import: Filter = serde_saphyr::from_str(
        "name: in
rules:
  - set: {communities: {add: [no-llgr]}}
    action: accept
",
    )
    .expect("a filter");
    let mut world = World::new();
    let from = world.add(2, 1, |config| config.import = Arc::new(import), |_| ());
    world.announce(from, 0, &set(&[1]));
    world.rib.down(from, Families::IPV4);
    world.rib.fate(from, Fate::LongLived(V4));
    assert!(world.rib.paths(&prefix(0)).is_empty());
}

#[test]
fn a_refresh_before_end_of_rib_has_no_beginning() {
    let mut world = World::new();
    let from = world.plain(2, 1);
    world.announce(from, 0, &set(&[1]));
    let to = world.plain(3, 2);
    world.rib.refresh(to, V4);
    world.settle();
    // RFC 7313 4. To each his Ends-of-RIB, and the route.
    assert_eq!(world.messages, 1 + 2 * 2);
    world.messages = 0;
    world.rib.refresh(to, V4);
    world.settle();
    assert_eq!(world.messages, 3, "BoRR, the route, EoRR");
}

#[test]
fn attributes_of_one_neighbour_have_a_bound_together() {
    let mut world = World::new();
    let (from, other) = (world.plain(2, 1), world.plain(3, 2));
    // 32 KiB each, and other ones for each route.
    let long = |n: u32| {
        let communities = (0..8192).map(|low| Community(n << 16 | low)).collect();
        Attributes { communities, ..set(&[1]) }
    };
    let hear = |world: &mut World, n: u32, attributes: &Attributes| {
        let (mut bytes, coding) = (Vec::new(), crate::message::Coding { extended_messages: true, ..world.send[&from] });
        pack::announce(&coding, V4, attributes, &[prefix(n).into()], &mut bytes).expect("room");
        let (message, _) = frame(&bytes, true).expect("sound").expect("whole");
        world.rib.update(from, &update::read(message.body, &coding).expect("sound"), 1)
    };
    let left_out: usize = (0..1_000).map(|n| hear(&mut world, n, &long(n))).sum();
    let kept = (0..1_000).filter(|n| !world.rib.paths(&prefix(*n)).is_empty()).count();
    assert_eq!((kept, left_out), (MAX_HEAVY / (32768 + 8 - LIGHT), 1_000 - kept));
    // Usual routes are taken still, others' too, and what is told anew but not taken is not there as it was.
    assert_eq!(hear(&mut world, 2_000, &set(&[1])), 0);
    world.announce(other, 2_001, &long(1));
    assert_eq!(world.rib.paths(&prefix(2_001)).len(), 1);
    assert_eq!(hear(&mut world, 2_000, &long(2_000)), 1);
    assert!(world.rib.paths(&prefix(2_000)).is_empty());
    // Room comes back with what goes, and with shorter attributes.
    world.rib.withdraw(from, prefix(0).into());
    assert_eq!((hear(&mut world, 1, &set(&[1])), hear(&mut world, 2_000, &long(2_000))), (0, 0));
    assert_eq!((hear(&mut world, 2_002, &long(5)), hear(&mut world, 2_003, &long(6))), (0, 1));
    world.rib.down(from, Families::NONE);
    assert_eq!(hear(&mut world, 0, &long(0)), 0);
}
