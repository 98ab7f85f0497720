//! A million messages of all types, most of them wrong, by peers who come back whenever they are thrown out: each answer is
//! the right one, nothing grows, and an innocent session beside them hears only what is sound.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bgp::message::notification::code;
use bgp::message::{Kind, Message};
use bgp::session::Config;
use bgpd::control::view::NeighborView;
use bgpd::control::{Answer, Query};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::messages::{Chance, any, hello, mutate};
use crate::model::{End, Model};
use crate::world::*;
use crate::{alone_on_the_heap, held};

/// Of whom the last address's octets are from here on.
const FIRST: u8 = 10;
const HOSTILE: u8 = 8;
/// Sent at once.
const BATCH: usize = 24;
/// In so many of a hundred cases it is looked whether the daemon has the routes that it should have, and in so many a session
/// that is well is closed without a word.
const LOOKS: usize = 20;
const LEAVES: usize = 5;
/// The heap is looked at after each of so many parts.
const PARTS: u64 = 5;
/// Bytes that may be held more at the end than after the second part: tables keep room for what was there at once.
const GROWTH: usize = 1 << 20;
const SEED: &str = "FERROKUBE_TEST_SEED";

/// What was sent by one of them, over all of his sessions.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    taken: [u64; 5],
    faults: u64,
    sessions: u64,
    /// How often it was looked at his routes.
    looks: u64,
    /// How many ended with each code.
    codes: [u64; 9],
}

impl Tally {
    fn messages(&self) -> u64 {
        self.taken.iter().sum::<u64>() + self.codes[usize::from(code::MESSAGE_HEADER)]
    }
}

struct Hostile {
    host: u8,
    number: u32,
    config: Config,
    chance: Chance,
    tally: Tally,
}

fn seed() -> u64 {
    let by_chance = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    std::env::var(SEED).map_or_else(|_| by_chance(), |text| text.parse().expect("a number"))
}

#[test]
fn messages_of_all_types_mutated() {
    alone_on_the_heap(mutated());
}

async fn mutated() {
    let all: u64 = if testkit::full() { 1_000_000 } else { 20_000 };
    let seed = seed();
    println!("{SEED}={seed}");
    let usual = "export: reject, import: accept, passive: true, families: [ipv4, ipv6], graceful-restart: {mode: off}, \
                 prefix-limits: {ipv4: {most: unlimited}, ipv6: {most: unlimited}}, least-hold-time: 60s, \
                 idle-hold-time: 1ms, longest-idle-hold-time: 1ms";
    let mut lines = neighbor(60, 1, 2, "remote-as: 65100, export: accept, import: accept, families: [ipv4, ipv6]");
    for at in 0..HOSTILE {
        // Every other one is of our AS: some attributes are read of those alone.
        let number = number(at);
        lines += &format!("  - {{address: {}, remote-as: {number}, {usual}}}\n", host(60, FIRST + at));
    }
    // The kernel that the tests have remembers every prefix for ever.
    let rest = format!("kernel: {{routes: false}}\nneighbors:\n{lines}");
    let one = Speaker::start(60, 1, 64512, &rest);
    let innocent = "remote-as: 64512, import: accept, export: accept, families: [ipv4, ipv6]";
    let own = "kernel: {routes: false}\nnetworks: [{prefix: 192.168.0.0/24}]\n";
    let two = Speaker::start(60, 2, 65100, &format!("{own}neighbors:\n{}", neighbor(60, 2, 1, innocent)));
    one.up(2).await;
    one.until_route("192.168.0.0/24", |best| best.is_some()).await;
    let config = parsed(&text(60, 1, 64512, &rest));
    let mut hostile: Vec<Hostile> = (0..HOSTILE)
        .map(|at| Hostile {
            host: FIRST + at,
            number: number(at),
            config: config.neighbors[usize::from(at) + 1].peering.session.clone(),
            chance: Chance(seed.wrapping_add(u64::from(at) << 32)),
            tally: Tally::default(),
        })
        .collect();
    let mut after = Vec::new();
    for part in 1..=PARTS {
        let quota = all * part / PARTS / u64::from(HOSTILE);
        hostile = attacked(&one, hostile, quota).await;
        quiet(&one, &two, &hostile).await;
        after.push(held());
    }
    println!("held after each part: {after:?}");
    // The first parts fill what stays; the others must not add to it.
    let (filled, last) = (after[1], after[after.len() - 1]);
    assert!(last < filled + GROWTH, "{SEED}={seed}: {after:?} bytes were held after each part");
    let mut sum = Tally::default();
    for one in &hostile {
        (0..5).for_each(|at| sum.taken[at] += one.tally.taken[at]);
        (0..9).for_each(|at| sum.codes[at] += one.tally.codes[at]);
        sum.faults += one.tally.faults;
        sum.sessions += one.tally.sessions;
        sum.looks += one.tally.looks;
    }
    println!("{} messages: {sum:?}", sum.messages());
    assert!(
        sum.messages() >= all
            && sum.taken.iter().all(|count| *count > 0)
            && sum.faults > all / 20
            && sum.looks > all / 500,
        "{sum:?}"
    );
    assert!([1, 2, 3, 5].iter().all(|code| sum.codes[*code] > 0), "{sum:?}");
    one.end().await;
    two.end().await;
}

/// Messages of a neighbour that the daemon has taken, by type.
fn heard(neighbor: &NeighborView) -> [u64; 5] {
    let m = neighbor.messages_received;
    [m.open, m.update, m.notification, m.keepalive, m.route_refresh]
}

fn number(at: u8) -> u32 {
    if at.is_multiple_of(2) { 65001 + u32::from(at) } else { 64512 }
}

/// All of them at once, until each has sent so much.
async fn attacked(one: &Speaker, hostile: Vec<Hostile>, quota: u64) -> Vec<Hostile> {
    let tasks = hostile.into_iter().map(|mut hostile| {
        let handle = one.handle.clone();
        tokio::spawn(async move {
            while hostile.tally.messages() < quota {
                hostile.session(&handle).await;
            }
            hostile
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.push(task.await.expect("nothing unexpected"));
    }
    all
}

/// Everybody has gone: the daemon has counted the same, keeps none of their routes, and the innocent one has noticed nothing.
async fn quiet(one: &Speaker, two: &Speaker, hostile: &[Hostile]) {
    for hostile in hostile {
        let tally = hostile.tally;
        let gone = one.until(hostile.host, "the end", |n| n.state != "Established" && n.remote.is_none()).await;
        assert_eq!((heard(&gone), gone.faults), (tally.taken, tally.faults), "of {}", hostile.host);
        assert_eq!((gone.received.ipv4, gone.received.ipv6), (0, 0), "of {}", hostile.host);
    }
    let told = two.until(1, "all is taken back", |n| (n.received.ipv4, n.received.ipv6) == (0, 0)).await;
    assert_eq!((told.sessions, told.state.as_str(), told.faults), (1, "Established", 0), "{told:?}");
    let innocent = one.neighbor(2).await;
    assert_eq!((innocent.sessions, innocent.received.ipv4), (1, 1), "{innocent:?}");
    let Some(Answer::Summary(summary)) = one.handle.ask(Query::Summary).await else { panic!("no answer") };
    assert_eq!((summary.prefixes.ipv4, summary.prefixes.ipv6), (1, 0), "{summary:?}");
}

impl Hostile {
    /// A session, or what should have become one.
    async fn session(&mut self, handle: &bgpd::daemon::Handle) {
        let mut peer = self.greeted().await;
        let mut model = Model::new(&self.config);
        self.tally.sessions += 1;
        let mut hello = [Message::Open(hello(self.number)).write(), Message::Keepalive.write()];
        if self.chance.percent(8) {
            let which = self.chance.below(2);
            mutate(&mut self.chance, &mut hello[which]);
        }
        let mut bytes = hello.concat();
        loop {
            let end = model.hear(&bytes);
            if let Some(end) = end {
                // What he sends behind it is nobody's. His connection may be closed for it.
                let _ = peer.stream.write_all(&bytes).await;
                self.ended(peer, end).await;
                break;
            }
            peer.send(&bytes).await;
            // He reads, too.
            while matches!(peer.stream.try_read_buf(&mut peer.buffer), Ok(1..)) {}
            // Who leaves waits before: what was not taken by then may be lost with the connection.
            let (looks, leaves) = (self.chance.percent(LOOKS), self.chance.percent(LEAVES));
            if looks || leaves {
                self.in_step(handle, &model).await;
            }
            if leaves {
                break;
            }
            let count = 1 + self.chance.below(BATCH);
            bytes = (0..count).flat_map(|_| any(&mut self.chance, self.number)).collect();
        }
        (0..5).for_each(|at| self.tally.taken[at] += model.taken[at]);
        self.tally.faults += model.faults;
    }

    /// A connection over which the daemon has said its OPEN.
    async fn greeted(&self) -> Scripted {
        loop {
            let mut peer = Scripted::connect(60, self.host, 1).await;
            match peer.next().await {
                Some((Kind::Open, _)) => return peer,
                // He rests, or has not seen yet that the last connection is gone.
                Some((Kind::Notification, _)) | None => sleep(Duration::from_millis(1)).await,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The daemon ends it as the model does.
    async fn ended(&mut self, mut peer: Scripted, end: End) {
        let mut said = None;
        while let Some((kind, body)) = peer.next().await {
            if kind == Kind::Notification {
                said = bgp::message::notification::Notification::read(&body);
            }
        }
        let wanted = match end {
            End::Said(notification) => {
                self.tally.codes[usize::from(notification.code).min(8)] += 1;
                Some(notification)
            }
            End::Silent => None,
        };
        assert_eq!(said, wanted, "to {}", self.host);
    }

    /// When the daemon has taken all of it, it has the routes that the model has.
    async fn in_step(&mut self, handle: &bgpd::daemon::Handle, model: &Model) {
        let mut all = self.tally.taken;
        (0..5).for_each(|at| all[at] += model.taken[at]);
        let end = tokio::time::Instant::now() + PATIENCE;
        let here = loop {
            let asked = handle.ask(Query::Neighbors(Some(std::net::IpAddr::from(host(60, self.host)).into()))).await;
            let Some(Answer::Neighbors(mut found)) = asked else { panic!("{asked:?}") };
            let here = found.remove(0);
            if heard(&here) == all {
                break here;
            }
            assert!(tokio::time::Instant::now() < end, "{all:?} messages were sent: {here:?}");
            sleep(Duration::from_millis(1)).await;
        };
        let [ipv4, ipv6] = model.told().map(|count| count as u32);
        assert_eq!((here.received.ipv4, here.received.ipv6), (ipv4, ipv6), "of {}", self.host);
        self.tally.looks += 1;
    }
}
