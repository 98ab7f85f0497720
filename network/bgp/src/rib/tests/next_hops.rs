//! Ways to next hops, where somebody resolves them.

use super::*;

#[test]
fn nothing_goes_by_a_next_hop_before_its_way_is_known() {
    let mut world = World::new();
    world.rib.resolve_next_hops();
    let (from, to) = (world.client(2), world.plain(3, OWN));
    world.announce(from, 0, &set(&[]));
    assert_eq!(world.rib.new_next_hops(), [IpAddr::from(address(77))]);
    world.settle();
    assert_eq!(world.told(to, 0), None);
    assert!(world.rib.awaits_next_hops());
    world.rib.next_hop(address(77).into(), Some(3));
    assert!(!world.rib.awaits_next_hops());
    world.settle();
    assert!(world.told(to, 0).is_some());
    world.announce(from, 1, &set(&[]));
    assert_eq!(world.rib.new_next_hops(), [] as [IpAddr; 0], "asked once");
}

/// A table of routes, each by a next hop of its own, would be looked through once for each of them.
#[test]
fn ways_that_change_together_are_one_decision() {
    let mut world = World::new();
    world.rib.resolve_next_hops();
    let from = world.client(2);
    for n in 0..3 {
        world.announce(from, n, &Attributes { next_hop: NextHop::V4(address(77 + n as u8)), ..set(&[]) });
    }
    world.settle();
    (0..3).for_each(|n| world.rib.next_hop(address(77 + n).into(), Some(3)));
    world.rib.next_hop(address(78).into(), None);
    assert!((0..3).all(|n| world.rib.best(&prefix(n)).is_none()), "not one after the other");
    let mut changed = world.settle();
    changed.sort();
    assert_eq!(changed, [prefix(0), prefix(2)]);
    assert_eq!(world.settle(), []);
}

#[test]
fn of_this_host_and_of_the_link_nothing_is_resolved() {
    let mut world = World::new();
    world.rib.resolve_next_hops();
    let (from, own) = (world.client(2), PeerConfig::new(Source::Static, address(1).into(), OWN));
    let own = world.rib.add_peer(own).expect("room");
    world.announce(own, 0, &Attributes::local(own_next_hop(V4)));
    let link: IpAddr = "fe80::7".parse().expect("an address");
    world.announce(from, 1, &Attributes { next_hop: NextHop::new(link), ..set(&[]) });
    assert_eq!(world.rib.new_next_hops(), [] as [IpAddr; 0]);
    assert!(world.rib.best(&prefix(0)).is_some() && world.rib.best(&prefix(1)).is_some());
}

/// Somebody who names a next hop of his own in each of 100,000 routes costs a look at no more than his share.
#[test]
fn a_neighbour_with_many_next_hops_has_a_share_and_others_have_theirs() {
    let mut world = World::new();
    world.rib.resolve_next_hops();
    let (many, other) = (world.client(2), world.client(3));
    let hop = |n: u32| Ipv4Addr::from(0xac10_0000 + n);
    let by = |n: u32| Attributes { next_hop: NextHop::V4(hop(n)), ..set(&[]) };
    let most = u32::try_from(MAX_NEXT_HOPS_OF_ONE).expect("a number");
    (0..most + 100).for_each(|n| world.announce(many, n, &by(n)));
    assert_eq!((world.rib.next_hops(), world.rib.new_next_hops().len()), (MAX_NEXT_HOPS_OF_ONE, MAX_NEXT_HOPS_OF_ONE));
    assert_eq!((world.rib.refused_next_hops(many), world.rib.lacks_room_for_next_hops()), (100, true));
    (0..most).for_each(|n| world.rib.next_hop(hop(n).into(), Some(1)));
    world.settle();
    let used = |world: &World, n: u32| world.rib.best(&prefix(n)).is_some();
    assert!(used(&world, 0) && used(&world, most - 1));
    assert!(!used(&world, most) && !used(&world, most + 99), "what nobody was asked about is no way");
    // Another has room, also for what the first had none for, and by that the first's goes, too.
    world.announce(other, most + 200, &by(most));
    assert_eq!(world.rib.new_next_hops(), [IpAddr::from(hop(most))]);
    world.rib.next_hop(hop(most).into(), Some(1));
    world.settle();
    assert!(used(&world, most + 200) && used(&world, most));
    // Where some are not needed any more, others get their room.
    (0..10).for_each(|n| world.rib.withdraw(many, Nlri::from(prefix(n))));
    assert_eq!(world.rib.forget_next_hops().len(), 10);
    assert_eq!((world.rib.new_next_hops().len(), world.rib.next_hops()), (10, MAX_NEXT_HOPS_OF_ONE + 1));
    // One who comes in his place begins with nothing.
    world.rib.remove_peer(many);
    let next = world.client(2);
    assert_eq!((next, world.rib.refused_next_hops(next)), (many, 0));
    world.announce(next, 0, &by(most + 300));
    assert_eq!(world.rib.new_next_hops(), [IpAddr::from(hop(most + 300))]);
}

#[test]
fn what_no_route_goes_by_is_forgotten() {
    let mut world = World::new();
    world.rib.resolve_next_hops();
    let from = world.client(2);
    world.announce(from, 0, &set(&[]));
    world.announce(from, 1, &Attributes { next_hop: NextHop::V4(address(78)), ..set(&[]) });
    assert_eq!(world.rib.new_next_hops().len(), 2);
    world.rib.withdraw(from, Nlri::from(prefix(0)));
    assert_eq!(world.rib.forget_next_hops(), [IpAddr::from(address(77))]);
    assert_eq!(world.rib.next_hops(), 1);
    // It comes back, and is asked about again.
    world.announce(from, 0, &set(&[]));
    assert_eq!(world.rib.new_next_hops(), [IpAddr::from(address(77))]);
}

#[test]
fn other_options_are_another_decision() {
    let mut world = World::new();
    let (two, three) = (world.client(2), world.client(3));
    for (n, peer) in [(77, two), (78, three)] {
        world.announce(peer, 0, &Attributes { next_hop: NextHop::V4(address(n)), ..set(&[]) });
    }
    let used = |world: &World| world.rib.paths(&prefix(0)).iter().filter(|path| path.used).count();
    assert_eq!((world.settle().len(), used(&world)), (1, 1));
    world.rib.set_options(Options { maximum_paths: 4, ..Options::default() });
    assert_eq!((world.settle().len(), used(&world)), (1, 2), "the kernel hears of the second");
}
