//! Much of what is sound: a million routes that come and go, attributes as long as they can be, and connections that are
//! left in the middle of something.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bgp::attribute::intern::SWEEP_BYTES;
use bgp::attribute::{AsPath, Attributes, Community, NextHop};
use bgp::family::Family;
use bgp::message::nlri::Nlri;
use bgp::message::notification::code;
use bgp::message::{Kind, Message, pack, update};
use bgp::rib::MAX_HEAVY;
use meta::Prefix;

use crate::world::*;
use crate::{alone_on_the_heap, held};

const USUAL: &str = "passive: true, import: accept, export: accept, prefix-limits: {ipv4: {most: unlimited}}";
/// Routes that share their attributes.
const SHARE: usize = 200;
/// Bytes of the heap for a route of one neighbour that another is told.
const ROUTE: usize = 500;
const MIB: usize = 1 << 20;

/// Where a route is and by which path: what a neighbour knows of it.
type Table = BTreeMap<Prefix, u32>;

fn prefix_of(n: usize) -> Prefix {
    Prefix::new(Ipv4Addr::from(0x0100_0000 + ((n as u32) << 8)), 24)
}

/// What a reader is told, until his table is what it should be.
async fn told(peer: &mut Scripted, table: &mut Table, wanted: &Table) {
    let mut differing = table.iter().filter(|(prefix, path)| wanted.get(prefix) != Some(path)).count()
        + wanted.keys().filter(|prefix| !table.contains_key(prefix)).count();
    while differing > 0 {
        let body = peer.until(Kind::Update).await;
        let update = update::read(&body, &coding()).expect("sound");
        assert_eq!(update.faults, []);
        let mut set = |prefix: Prefix, path: Option<u32>| {
            let before = table.get(&prefix).copied();
            match path {
                Some(path) => table.insert(prefix, path),
                None => table.remove(&prefix),
            };
            let wanted = wanted.get(&prefix).copied();
            differing = differing + usize::from(path != wanted) - usize::from(before != wanted);
        };
        for list in update.withdrawn() {
            list.iter().for_each(|route| set(route.prefix, None));
        }
        let last = update.attributes.as_path.numbers().last();
        for (_, list) in update.announced() {
            list.iter().for_each(|route| set(route.prefix, last));
        }
    }
}

/// Tells routes to prefixes by a path with this number at its end.
async fn tells(peer: &mut Scripted, all: impl Iterator<Item = usize>, first: u32) {
    let all: Vec<usize> = all.collect();
    for (at, some) in all.chunks(SHARE).enumerate() {
        let some: Vec<Prefix> = some.iter().map(|n| prefix_of(*n)).collect();
        peer.announce(host(61, 2), &[65002, 100_000 + at as u32, first], &some).await;
    }
}

async fn takes_back(peer: &mut Scripted, all: impl Iterator<Item = usize>) {
    let routes: Vec<Nlri> = all.map(|n| prefix_of(n).into()).collect();
    let mut bytes = Vec::new();
    pack::withdraw(&coding(), Family::Ipv4Unicast, &routes, &mut bytes);
    peer.send(&bytes).await;
}

#[test]
fn a_million_routes_that_come_and_go() {
    alone_on_the_heap(come_and_go());
}

async fn come_and_go() {
    let count = if testkit::full() { 1_000_000 } else { 20_000 };
    let lines = neighbor(61, 1, 2, &format!("remote-as: 65002, {USUAL}"))
        + &neighbor(61, 1, 3, &format!("remote-as: 65003, {USUAL}"))
        + &neighbor(61, 1, 4, &format!("remote-as: 65004, {USUAL}"));
    let one = Speaker::start(61, 1, 64512, &format!("neighbors:\n{lines}"));
    let (mut from, mut to, mut unsteady) =
        (Scripted::connect(61, 2, 1).await, Scripted::connect(61, 3, 1).await, Scripted::connect(61, 4, 1).await);
    from.establish(&open(65002, 0, &[])).await;
    to.establish(&open(65003, 0, &[])).await;
    unsteady.establish(&open(65004, 0, &[])).await;
    one.up(4).await;
    let (mut table, mut wanted) = (Table::new(), Table::new());
    let before = held();
    wanted.extend((0..count).map(|n| (prefix_of(n), 1)));
    tokio::join!(tells(&mut from, 0..count, 1), told(&mut to, &mut table, &wanted));
    let full = held();
    assert!(full - before < count * ROUTE + 16 * MIB, "{} bytes for {count} routes", full - before);
    // One who has told nothing for as long as it takes is let go, with what was for him: he does not read.
    drop(unsteady);
    for round in 2..5_u32 {
        // A third goes and comes back by another path, another third takes that path at once.
        let some = |rest: usize| (0..count).filter(move |n| n % 3 == rest);
        let by = (round % 3) as usize;
        some(by).for_each(|n| {
            wanted.remove(&prefix_of(n));
        });
        wanted.extend(some((by + 1) % 3).map(|n| (prefix_of(n), round)));
        let changes = async {
            takes_back(&mut from, some(by)).await;
            tells(&mut from, some((by + 1) % 3), round).await;
        };
        tokio::join!(changes, told(&mut to, &mut table, &wanted));
        wanted.extend(some(by).map(|n| (prefix_of(n), round)));
        tokio::join!(tells(&mut from, some(by), round), told(&mut to, &mut table, &wanted));
    }
    let churned = held();
    assert!(churned < full + full / 10 + 4 * MIB, "{full} bytes before the routes changed, {churned} after");
    // He goes and all of it with him, and comes back with the same: room for what changes at once is kept, and that is all.
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        drop(from);
        wanted.clear();
        told(&mut to, &mut table, &wanted).await;
        one.until(2, "no route", |n| n.received.ipv4 == 0).await;
        without.push(held());
        from = Scripted::greeted(61, 2, 1).await;
        from.establish(&open(65002, 0, &[])).await;
        wanted.extend((0..count).map(|n| (prefix_of(n), 1)));
        tokio::join!(tells(&mut from, 0..count, 1), told(&mut to, &mut table, &wanted));
        with.push(held());
    }
    println!(
        "held before {before}, with all {full}, after changes {churned}, without {without:?}, with again {with:?}"
    );
    for [first, .., last] in [[without[0], without[1], without[2]], [with[0], with[1], with[2]]] {
        assert!(last < first + 2 * MIB, "{first} bytes the first time, {last} the third");
    }
    assert!(with[2] - before < count * ROUTE + 16 * MIB, "{} bytes for {count} routes", with[2] - before);
    let reader = one.neighbor(3).await;
    assert_eq!((reader.sessions, reader.state.as_str()), (1, "Established"), "{reader:?}");
    one.end().await;
}

/// A set that fills a message, and is nobody else's.
fn bomb(n: u32) -> Attributes {
    let mut set = Attributes { as_path: AsPath::sequence(&[65002]), ..Attributes::local(NextHop::V4(host(62, 2))) };
    match n % 2 {
        0 => set.communities = (0..990).map(|at| Community(n << 10 | at)).collect(),
        _ => {
            let numbers: Vec<u32> = [65002].into_iter().chain((0..980).map(|at| 100_000 + (n << 10 | at))).collect();
            set.as_path = AsPath::sequence(&numbers);
        }
    }
    set
}

#[test]
fn attributes_that_fill_messages_cost_who_sends_them() {
    alone_on_the_heap(bombs());
}

async fn bombs() {
    let count: u32 = if testkit::full() { 100_000 } else { 8_000 };
    let lines = neighbor(62, 1, 2, &format!("remote-as: 65002, {USUAL}"))
        + &neighbor(62, 1, 3, "remote-as: 65003, passive: true, import: accept, export: reject");
    let one = Speaker::start(62, 1, 64512, &format!("neighbors:\n{lines}"));
    let mut beside = Scripted::connect(62, 3, 1).await;
    beside.establish(&open(65003, 0, &[])).await;
    beside.announce(host(62, 3), &[65003], &[prefix("192.168.0.0/24")]).await;
    one.until(3, "his route", |n| n.received.ipv4 == 1).await;
    let before = held();
    for session in 1..=3 {
        let mut from = Scripted::greeted(62, 2, 1).await;
        from.establish(&open(65002, 0, &[])).await;
        let mut bytes = Vec::new();
        for n in 0..count {
            bytes.clear();
            let routes = [Nlri::from(prefix_of(n as usize))];
            pack::announce(&coding(), Family::Ipv4Unicast, &bomb(n), &routes, &mut bytes).expect("it fits");
            assert!(bytes.len() > 3900, "{}", bytes.len());
            from.send(&bytes).await;
        }
        let all = u64::from(count);
        let hostile = one.until(2, "all of it", |n| n.messages_received.update >= session * all).await;
        // Of each neighbour so much is kept, and the rest is counted.
        assert_eq!((hostile.sessions, hostile.faults), (session, 0), "{hostile:?}");
        let kept = u64::from(hostile.received.ipv4);
        assert!(kept < all && hostile.left_out == (all - kept) * session, "{hostile:?}");
        assert!(held() < before + MAX_HEAVY + SWEEP_BYTES + 8 * MIB, "{} bytes", held() - before);
        let innocent = one.neighbor(3).await;
        assert_eq!((innocent.sessions, innocent.received.ipv4, innocent.left_out), (1, 1, 0), "{innocent:?}");
        assert!(one.route("192.168.0.0/24").await.is_some());
        drop(from);
        one.until(2, "the end", |n| n.received.ipv4 == 0).await;
    }
    one.end().await;
}

#[test]
fn sessions_left_half_open_end_by_their_timers() {
    alone_on_the_heap(half_open());
}

/// Each is left somewhere in the middle: before an OPEN, in its header, before the KEEPALIVE, in an UPDATE.
async fn half_open() {
    let each: u8 = if testkit::full() { 50 } else { 10 };
    let range = format!("{}/25", host(63, 128));
    let half = "remote-as: external, import: accept, export: accept, hold-time: 3s, least-hold-time: 3s";
    let rest = format!(
        "neighbors:\n{}dynamic: [{{prefix: {range}, limit: 100, {half}}}]\n",
        neighbor(63, 1, 2, "remote-as: 65002, passive: true, import: accept")
    );
    let one = Speaker::start(63, 1, 64512, &rest);
    let mut beside = Scripted::connect(63, 2, 1).await;
    beside.establish(&open(65002, 0, &[])).await;
    one.up(2).await;
    let hello = Message::Open(open(65001, 3, &[])).write();
    let update = announcement(host(63, 129), &[65001], &[prefix("10.0.0.0/24")]);
    let (keepalive, most) = (Message::Keepalive.write(), update.len() - 1);
    let said = [Vec::new(), hello[..11].to_vec(), hello.clone(), [&hello[..], &keepalive, &update[..most]].concat()];
    let mut left = Vec::new();
    for n in 0..4 * each {
        // Those beyond the range's limit are closed at once, and that is how they end.
        let mut peer = Scripted::connect(63, 128 + n % 127, 1).await;
        let words = &said[usize::from(n % 4)];
        let _ = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, words).await;
        left.push((n, peer));
    }
    for (n, mut peer) in left.into_iter().filter(|(n, _)| n % 4 >= 2 && *n < 100) {
        let said = peer.notification().await;
        assert_eq!((said.code, said.subcode), (code::HOLD_TIMER_EXPIRED, 0), "of {n}");
        assert_eq!(peer.next().await, None);
    }
    // And the others when nothing has come of them for half a minute.
    if testkit::full() {
        let end = tokio::time::Instant::now() + 4 * PATIENCE;
        while one.neighbors().await.len() > 1 {
            assert!(tokio::time::Instant::now() < end, "{} are still there", one.neighbors().await.len() - 1);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    let innocent = one.neighbor(2).await;
    assert_eq!((innocent.sessions, innocent.state.as_str()), (1, "Established"), "{innocent:?}");
    one.end().await;
}
