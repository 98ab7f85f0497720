//! Routes between neighbours of one speaker: what is told to whom, with what, and when it goes.

mod kept;
mod next_hops;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::attribute::{AsPath, Community, LargeCommunity};
use crate::message::capability::Role;
use crate::message::{Kind, frame, pack, update};
use crate::policy::{Filter, Source};
use crate::session::Config;
use crate::session::config::{Opening, RemoteAs, Restart};
use crate::session::negotiated::judge;
use crate::session::restart::Fate;

const OWN: u32 = 64512;
const V4: Family = Family::Ipv4Unicast;

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}

fn prefix(n: u32) -> Prefix {
    Prefix::new(Ipv4Addr::from(0xc000_0000 | n << 8), 24)
}

/// What a neighbour has been told, by prefix and path.
type Told = BTreeMap<Nlri, Attributes>;

struct World {
    rib: Rib,
    told: BTreeMap<PeerId, Told>,
    send: BTreeMap<PeerId, crate::message::Coding>,
    /// Messages to each since the last look.
    messages: usize,
}

impl World {
    fn new() -> World {
        let speaker =
            Speaker { number: OWN, identifier: address(1), cluster_id: address(1), options: Options::default() };
        World { rib: Rib::new(speaker), told: BTreeMap::new(), send: BTreeMap::new(), messages: 0 }
    }

    /// A neighbour of an AS, with changes to what is configured and to the session.
    fn add(
        &mut self,
        host: u8,
        number: u32,
        change: impl FnOnce(&mut PeerConfig),
        session: impl Fn(&mut Config),
    ) -> PeerId {
        let source = if number == OWN { Source::Internal } else { Source::External };
        let mut config = PeerConfig::new(source, address(host).into(), OWN);
        config.own_addresses = [Some(address(1).into()), Some("fd00::1".parse().expect("an address"))];
        change(&mut config);
        let id = self.rib.add_peer(config).expect("room");
        self.session(id, host, number, session);
        id
    }

    fn session(&mut self, id: PeerId, host: u8, number: u32, session: impl Fn(&mut Config)) {
        let mut ours = Config::new(OWN, RemoteAs::Number(number), address(1));
        let mut his = Config::new(number, RemoteAs::Number(OWN), address(host));
        ours.families = Families::ALL;
        his.families = Families::ALL;
        session(&mut ours);
        session(&mut his);
        his.role = ours.role.map(Role::counterpart);
        let negotiated = judge(&ours, &his.open(Opening::First)).expect("an agreement");
        self.send.insert(id, negotiated.send);
        self.told.insert(id, Told::new());
        self.rib.up(id, &negotiated);
    }

    fn plain(&mut self, host: u8, number: u32) -> PeerId {
        self.add(host, number, |_| (), |_| ())
    }

    fn client(&mut self, host: u8) -> PeerId {
        self.add(host, OWN, |config| config.client = true, |_| ())
    }

    fn announce(&mut self, from: PeerId, n: u32, set: &Attributes) {
        self.rib.originate(from, prefix(n), set.clone(), 1);
    }

    /// Tells everybody everything.
    fn settle(&mut self) -> Vec<Prefix> {
        let changed = self.rib.publish();
        for (id, told) in &mut self.told {
            loop {
                let bytes = self.rib.flush(*id, 64 << 10);
                if bytes.is_empty() {
                    break;
                }
                self.messages += hear(&bytes, told, &self.send[id]);
            }
        }
        changed
    }

    fn told(&self, id: PeerId, n: u32) -> Option<&Attributes> {
        self.told[&id].get(&Nlri::from(prefix(n)))
    }
}

/// Does what the messages say; how many they are.
fn hear(mut bytes: &[u8], told: &mut Told, coding: &crate::message::Coding) -> usize {
    let mut messages = 0;
    while let Some((message, taken)) = frame(bytes, coding.extended_messages).expect("sound") {
        bytes = &bytes[taken..];
        messages += 1;
        if message.kind != Kind::Update {
            continue;
        }
        let update = update::read(message.body, coding).expect("sound");
        assert_eq!(update.faults, []);
        update.withdrawn().flat_map(|list| list.iter()).for_each(|nlri| {
            told.remove(&nlri);
        });
        for (next_hop, list) in update.announced() {
            let set = Attributes { next_hop, ..update.attributes.clone() };
            list.iter().for_each(|nlri| {
                told.insert(nlri, set.clone());
            });
        }
    }
    messages
}

fn set(path: &[u32]) -> Attributes {
    Attributes { as_path: AsPath::sequence(path), ..Attributes::local(NextHop::V4(address(77))) }
}

#[test]
fn the_best_of_two_is_told_and_the_other_when_it_goes() {
    let mut world = World::new();
    let (a, b, c) = (world.plain(2, 1), world.plain(3, 2), world.plain(4, 3));
    world.announce(a, 0, &set(&[1, 9, 9]));
    world.announce(b, 0, &set(&[2, 9]));
    assert_eq!(world.settle(), [prefix(0)]);
    let best = world.rib.best(&prefix(0)).expect("a path");
    assert_eq!((best.peer, best.why), (b, Why::AsPathLength));
    assert_eq!(world.rib.paths(&prefix(0))[1].why, Why::AsPathLength);
    let told = world.told(c, 0).expect("told").clone();
    assert_eq!((told.as_path, told.next_hop), (AsPath::sequence(&[OWN, 2, 9]), NextHop::V4(address(1))));
    assert!(world.told(b, 0).is_none(), "not back to whom it is from");
    world.rib.withdraw(b, prefix(0).into());
    world.settle();
    assert_eq!(world.told(c, 0).map(|set| set.as_path.clone()), Some(AsPath::sequence(&[OWN, 1, 9, 9])));
    assert!(world.told(a, 0).is_none());
    world.rib.withdraw(a, prefix(0).into());
    assert_eq!(world.settle(), [prefix(0)], "the kernel hears that it is gone");
    assert!(world.told.values().all(BTreeMap::is_empty));
    assert_eq!(world.rib.summary().prefixes, [0, 0]);
}

#[test]
fn a_slow_reader_hears_how_things_are_and_not_how_they_were() {
    let mut world = World::new();
    let (a, slow) = (world.plain(2, 1), world.plain(3, 2));
    for round in 0..50 {
        for n in 0..100 {
            world.announce(a, n, &Attributes { med: Some(round), ..set(&[1, round + 1]) });
        }
        world.rib.publish();
    }
    assert_eq!(world.rib.pending(slow, V4), 100);
    world.settle();
    assert_eq!(world.messages, 1 + 2 * 2, "one for all of them, and both Ends-of-RIB to each");
    assert!(world.told[&slow].values().all(|set| set.as_path == AsPath::sequence(&[OWN, 1, 50])));
    // What comes and goes meanwhile is not told at all.
    world.messages = 0;
    world.announce(a, 200, &set(&[1]));
    world.rib.publish();
    world.rib.withdraw(a, prefix(200).into());
    world.settle();
    assert_eq!(world.messages, 0);
}

#[test]
fn a_reflector_tells_its_clients_of_each_other() {
    let mut world = World::new();
    let (c1, c2) = (world.client(2), world.client(3));
    let (n1, n2, out) = (world.plain(4, OWN), world.plain(5, OWN), world.plain(6, 9));
    world.announce(c1, 1, &set(&[]));
    world.announce(n1, 2, &set(&[]));
    world.settle();
    let heard = |n, of: &World| [c1, c2, n1, n2, out].map(|id| of.told(id, n).is_some());
    assert_eq!(heard(1, &world), [false, true, true, true, true], "a client's: all");
    assert_eq!(heard(2, &world), [true, true, false, false, true], "another's: clients and other ASes");
    let reflected = world.told(c2, 1).expect("told");
    assert_eq!((reflected.originator_id, &reflected.cluster_list[..]), (Some(address(2)), &[address(1)][..]));
    assert_eq!((reflected.next_hop, reflected.local_preference), (NextHop::V4(address(77)), Some(100)));
    let outside = world.told(out, 1).expect("told");
    assert_eq!((outside.originator_id, outside.cluster_list.len(), outside.local_preference), (None, 0, None));
    // Back from where it went: loops.
    let loops = Attributes { originator_id: Some(address(1)), ..set(&[]) };
    world.announce(n2, 3, &loops);
    world.announce(n2, 4, &Attributes { cluster_list: [address(9), address(1)].into(), ..set(&[]) });
    world.announce(out, 5, &set(&[9, OWN]));
    world.announce(out, 6, &set(&[8]));
    world.settle();
    let why = |n| world.rib.paths(&prefix(n))[0].why;
    assert_eq!([3, 4, 5, 6].map(why), [Why::OriginatorLoop, Why::ClusterLoop, Why::AsLoop, Why::FirstAs]);
    assert!((3..7).all(|n| world.rib.best(&prefix(n)).is_none() && world.told(c1, n).is_none()));
}

#[test]
fn what_leaves_the_as_is_changed_as_configured() {
    let mut world = World::new();
    let from = world.add(2, 64600, |_| (), |_| ());
    let plain = world.plain(3, 7);
    let bare = world.add(4, 8, |config| config.remove_private = true, |_| ());
    let overridden = world.add(5, 64601, |config| config.as_override = true, |_| ());
    let local = world.add(6, 9, |config| config.local_as = 65000, |_| ());
    let kept = world.add(7, 10, |config| config.next_hop = NextHopMode::Keep, |_| ());
    let mut route = set(&[64600, 64601, 5]);
    route.med = Some(7);
    route.local_preference = Some(300);
    route.extended_communities =
        [0x0002_fc00_0000_0001, 0x4003_0000_0000_0001].map(crate::attribute::ExtendedCommunity).into();
    world.announce(from, 0, &route);
    world.settle();
    let path = |id| world.told(id, 0).expect("told").as_path.to_string();
    assert_eq!(path(plain), "64512 64600 64601 5");
    assert_eq!(path(bare), "64512 5");
    assert_eq!(path(overridden), "64512 64600 64512 5");
    assert_eq!(path(local), "65000 64600 64601 5");
    let told = world.told(plain, 0).expect("told");
    assert_eq!((told.med, told.local_preference, told.extended_communities.len()), (None, None, 1));
    assert_eq!(told.next_hop, NextHop::V4(address(1)));
    assert_eq!(world.told(kept, 0).map(|set| set.next_hop), Some(NextHop::V4(address(77))));
}

#[test]
fn communities_say_how_far_a_route_goes() {
    let mut world = World::new();
    let (from, inside, outside) = (world.client(2), world.plain(3, OWN), world.plain(4, 7));
    for (n, community) in [(0, Community::NO_EXPORT), (1, Community::NO_ADVERTISE), (2, Community::NO_EXPORT_SUBCONFED)]
    {
        let mut route = set(&[]);
        route.add_community(community);
        world.announce(from, n, &route);
    }
    world.settle();
    let heard = |id| [0, 1, 2].map(|n| world.told(id, n).is_some());
    assert_eq!((heard(inside), heard(outside)), ([true, false, true], [false; 3]));
}

#[test]
fn filters_judge_routes_in_and_out_and_again_when_they_change() {
    let filter = |text: &str| Arc::new(serde_saphyr::from_str::<Filter>(text).expect("a filter"));
    let import = filter(
        "name: in
rules:
  - match: {prefixes: [{prefix: 192.0.0.0/24}]}
    action: reject
  - set: {local-preference: 250, communities: {add: ['1:2:3']}}
    action: accept
",
    );
    let mut world = World::new();
    let from = world.add(2, 7, |config| config.import = import.clone(), |_| ());
    let to = world.add(3, OWN, |_| (), |_| ());
    world.announce(from, 0, &set(&[7]));
    world.announce(from, 1, &set(&[7]));
    world.settle();
    assert_eq!(world.rib.paths(&prefix(0))[0].why, Why::Filter);
    let told = world.told(to, 1).expect("told");
    let marked = [LargeCommunity { global: 1, local1: 2, local2: 3 }];
    assert_eq!((told.local_preference, &told.large_communities[..]), (Some(250), &marked[..]));
    assert!(world.told(to, 0).is_none());
    // Without the filter the routes are as they were told.
    let mut config = PeerConfig::new(Source::External, address(2).into(), OWN);
    config.own_addresses = [Some(address(1).into()), None];
    world.rib.reconfigure(from, config);
    world.settle();
    assert_eq!(world.told(to, 0).map(|set| set.local_preference), Some(Some(100)));
    assert_eq!(world.told(to, 1).map(|set| set.large_communities.len()), Some(0));
    // And nothing goes out that the export rejects.
    let mut config = PeerConfig::new(Source::Internal, address(3).into(), OWN);
    config.export = filter("name: none\n");
    world.rib.reconfigure(to, config);
    world.settle();
    assert!(world.told[&to].is_empty());
}

#[test]
fn a_next_hop_of_one_link_is_not_told_on_another() {
    let mut world = World::new();
    let (from, inside) = (world.plain(2, 1), world.plain(3, OWN));
    let v6: Prefix = "2001:db8::/32".parse().expect("a prefix");
    let hop = |text: &str| NextHop::new(text.parse().expect("an address"));
    for (told, heard) in [("fe80::2", "fd00::1"), ("fd00::2", "fd00::2")] {
        world.rib.originate(from, v6, Attributes { next_hop: hop(told), ..set(&[1]) }, 1);
        world.settle();
        assert_eq!(world.told[&inside].get(&v6.into()).map(|set| set.next_hop), Some(hop(heard)));
    }
}

/// A client elsewhere would look for it on a link of his own.
#[test]
fn a_next_hop_that_is_kept_goes_without_its_address_on_the_link() {
    let mut world = World::new();
    let (from, client) = (world.client(2), world.client(3));
    let beside = world.add(4, 9, |config| config.next_hop = NextHopMode::Keep, |_| ());
    let v6: Prefix = "2001:db8::/32".parse().expect("a prefix");
    let hop = |link_local: Option<&str>| NextHop::V6 {
        global: "fd00::2".parse().expect("an address"),
        link_local: link_local.map(|text| text.parse().expect("an address")),
    };
    world.rib.originate(from, v6, Attributes { next_hop: hop(Some("fe80::2")), ..set(&[]) }, 1);
    world.settle();
    for (who, to) in [("reflected", client), ("kept by configuration", beside)] {
        assert_eq!(world.told[&to].get(&v6.into()).map(|set| set.next_hop), Some(hop(None)), "{who}");
    }
}

#[test]
fn a_route_by_ourselves_is_refused() {
    let mut world = World::new();
    let (a, b) = (world.plain(2, 1), world.plain(3, 2));
    world.announce(a, 0, &Attributes { next_hop: NextHop::V4(address(1)), ..set(&[1]) });
    world.settle();
    assert_eq!(world.rib.paths(&prefix(0))[0].why, Why::NextHop);
    assert!(world.told(b, 0).is_none());
}

#[test]
fn with_add_path_every_path_is_told_and_each_goes_alone() {
    let mut world = World::new();
    let (a, b) = (world.plain(2, 1), world.plain(3, 2));
    let all = |config: &mut Config| (config.send_paths, config.receive_paths) = (Families::ALL, Families::ALL);
    let to = world.add(4, OWN, |_| (), all);
    world.announce(a, 0, &set(&[1]));
    world.announce(b, 0, &set(&[2, 2]));
    world.settle();
    let paths = |world: &World| world.told[&to].values().map(|set| set.as_path.to_string()).collect::<Vec<_>>();
    assert_eq!(paths(&world), ["1", "2 2"]);
    world.rib.withdraw(b, prefix(0).into());
    world.settle();
    assert_eq!(paths(&world), ["1"], "what is not the best goes, too");
    world.announce(b, 0, &set(&[2, 2]));
    world.rib.withdraw(a, prefix(0).into());
    world.settle();
    assert_eq!(paths(&world), ["2 2"]);
    world.messages = 0;
    world.rib.refresh(to, V4);
    world.settle();
    assert_eq!((paths(&world), world.messages), (vec!["2 2".to_owned()], 3), "BoRR, the route, EoRR");
    world.rib.withdraw(b, prefix(0).into());
    world.settle();
    assert!(world.told[&to].is_empty());
    assert_eq!(world.rib.summary().prefixes, [0, 0]);
}

#[test]
fn what_came_from_above_does_not_go_up_again() {
    let mut world = World::new();
    let role = |role| move |config: &mut Config| config.role = Some(role);
    let provider = world.add(2, 1, |_| (), role(Role::Customer));
    let peer = world.add(3, 2, |_| (), role(Role::Peer));
    let customer = world.add(4, 3, |_| (), role(Role::Provider));
    world.announce(provider, 0, &set(&[1]));
    world.announce(customer, 1, &set(&[3]));
    world.announce(customer, 2, &Attributes { only_to_customer: Some(9), ..set(&[3]) });
    world.settle();
    assert!(world.told(peer, 0).is_none());
    assert_eq!(world.told(customer, 0).map(|set| set.only_to_customer), Some(Some(1)));
    assert_eq!(world.told(peer, 1).map(|set| set.only_to_customer), Some(Some(OWN)));
    assert_eq!(world.told(provider, 1).map(|set| set.only_to_customer), Some(None));
    assert_eq!(world.rib.paths(&prefix(2))[0].why, Why::RouteLeak);
    // Judged again while the provider is away: his routes are his still.
    world.told.remove(&provider);
    world.rib.down(provider, Families::IPV4);
    let own_addresses = [Some(address(1).into()), None];
    let config = PeerConfig { own_addresses, ..PeerConfig::new(Source::External, address(2).into(), OWN) };
    world.rib.reconfigure(provider, config);
    world.settle();
    assert!(world.told(peer, 0).is_none());
    assert_eq!(world.told(customer, 0).map(|set| set.only_to_customer), Some(Some(1)));
}

#[test]
fn a_next_hop_that_is_gone_takes_its_routes_along() {
    let mut world = World::new();
    let (a, b, to) = (world.plain(2, 1), world.plain(3, 2), world.plain(4, OWN));
    world.announce(a, 0, &set(&[1]));
    world.announce(b, 0, &Attributes { next_hop: NextHop::V4(address(78)), ..set(&[2, 2]) });
    world.settle();
    world.rib.next_hop(address(77).into(), None);
    assert_eq!(world.settle(), [prefix(0)]);
    assert_eq!(world.told(to, 0).map(|set| set.as_path.to_string()), Some("2 2".into()));
    assert_eq!(world.rib.paths(&prefix(0))[1].why, Why::NextHop);
    world.rib.next_hop(address(77).into(), Some(10));
    world.settle();
    assert_eq!(world.told(to, 0).map(|set| set.as_path.to_string()), Some("1".into()));
}

#[test]
fn updates_are_packed_by_their_attributes() {
    let mut world = World::new();
    let (a, b) = (world.plain(2, 1), world.plain(3, 2));
    world.settle();
    world.messages = 0;
    for n in 0..9_000 {
        world.announce(a, n, &set(&[1, n % 3 + 10]));
    }
    world.settle();
    // 9,000 prefixes of four bytes, three sets, messages of 64 KiB, looks at 2,048 of them.
    assert_eq!((world.told[&b].len(), world.messages), (9_000, 15));
    assert!(world.rib.summary().sets <= 12);
}

#[test]
fn an_update_of_both_families_is_two_sets() {
    let mut world = World::new();
    let (a, b) = (world.plain(2, 1), world.plain(3, OWN));
    let coding = world.send[&a];
    let v6: Prefix = "fd00:7::/64".parse().expect("a prefix");
    let mut bytes = Vec::new();
    let hop = NextHop::new("fd00::9".parse::<IpAddr>().expect("an address"));
    let of_v6 = Attributes { next_hop: hop, ..set(&[1]) };
    pack::announce(&coding, Family::Ipv6Unicast, &of_v6, &[v6.into()], &mut bytes).expect("short");
    pack::announce(&coding, V4, &set(&[1]), &[prefix(0).into()], &mut bytes).expect("short");
    let mut rest = &bytes[..];
    while let Some((message, taken)) = frame(rest, true).expect("sound") {
        world.rib.update(a, &update::read(message.body, &coding).expect("sound"), 1);
        rest = &rest[taken..];
    }
    world.settle();
    assert_eq!(world.told[&b][&v6.into()].next_hop, hop);
    assert_eq!(world.told(b, 0).map(|set| set.next_hop), Some(NextHop::V4(address(77))));
    assert_eq!((world.rib.told(a, V4), world.rib.told(a, Family::Ipv6Unicast)), (1, 1));
}

#[test]
fn a_dump_has_every_path_that_neighbours_told() {
    let mut world = World::new();
    let (a, b) = (world.plain(2, 1), world.plain(3, 2));
    let own = world.rib.add_peer(PeerConfig::new(Source::Static, address(1).into(), OWN)).expect("room");
    world.announce(own, 0, &set(&[]));
    world.announce(a, 1, &set(&[1]));
    world.announce(b, 1, &set(&[2]));
    let mut dump = Vec::new();
    world.rib.dump(1_700_000_000, 1_600_000_000, |piece| dump.extend_from_slice(piece));
    // The neighbours, and the one prefix that they told: its two paths.
    let length = |at: usize| u32::from_be_bytes(dump[at + 8..at + 12].try_into().expect("four bytes")) as usize;
    let second = 12 + length(0);
    assert_eq!(dump.len(), second + 12 + length(second));
    assert_eq!(dump[second + 12..second + 12 + 10], [0, 0, 0, 0, 24, 192, 0, 1, 0, 2]);
}

/// What may happen.
#[derive(Clone, Debug)]
enum Blow {
    Announce(usize, u32, u32, u32),
    Withdraw(usize, u32),
    Down(usize, bool),
    Swept(usize),
    Publish,
    Flush(usize),
}

fn blows() -> impl Strategy<Value = Blow> {
    let who = 0..4usize;
    prop_oneof![
        6 => (who.clone(), 0..12u32, 0..3u32, 0..3u32).prop_map(|(w, n, med, length)| Blow::Announce(w, n, med, length)),
        3 => (who.clone(), 0..12u32).prop_map(|(w, n)| Blow::Withdraw(w, n)),
        1 => (who.clone(), any::<bool>()).prop_map(|(w, kept)| Blow::Down(w, kept)),
        1 => who.clone().prop_map(Blow::Swept),
        2 => Just(Blow::Publish),
        3 => who.prop_map(Blow::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever came when, and whoever read when: in the end each neighbour knows what is best now, and nothing else; and
    /// what nobody needs is gone.
    #[test]
    fn in_the_end_everybody_knows_what_is_best(blows in proptest::collection::vec(blows(), 0..120)) {
        let mut world = World::new();
        let peers = [world.client(2), world.client(3), world.plain(4, 7), world.plain(5, 8)];
        let numbers = [OWN, OWN, 7, 8];
        let mut model: BTreeMap<(usize, u32), (Attributes, bool)> = BTreeMap::new();
        for blow in blows {
            match blow {
                Blow::Announce(who, n, med, length) => {
                    let mut path = vec![9; length as usize];
                    if numbers[who] != OWN { path.insert(0, numbers[who]); }
                    let route = Attributes { med: Some(med), ..set(&path) };
                    world.announce(peers[who], n, &route);
                    model.insert((who, n), (route, false));
                }
                Blow::Withdraw(who, n) => {
                    world.rib.withdraw(peers[who], prefix(n).into());
                    model.remove(&(who, n));
                }
                Blow::Down(who, kept) => {
                    world.rib.down(peers[who], if kept { Families::ALL } else { Families::NONE });
                    world.session(peers[who], who as u8 + 2, numbers[who], |_| ());
                    model.retain(|(of, _), _| *of != who || kept);
                    model.iter_mut().filter(|((of, _), _)| *of == who).for_each(|(_, (_, stale))| *stale = true);
                }
                Blow::Swept(who) => {
                    world.rib.fate(peers[who], Fate::Swept(V4));
                    model.retain(|(of, _), (_, stale)| *of != who || !*stale);
                }
                Blow::Publish => { world.rib.publish(); }
                Blow::Flush(who) => {
                    let bytes = world.rib.flush(peers[who], 100);
                    let coding = world.send[&peers[who]];
                    hear(&bytes, world.told.get_mut(&peers[who]).expect("a neighbour"), &coding);
                }
            }
        }
        world.settle();
        for (who, peer) in peers.into_iter().enumerate() {
            let count = model.keys().filter(|(of, _)| *of == who).count();
            prop_assert_eq!(world.rib.told(peer, V4) as usize, count);
            for n in 0..12 {
                let told = world.told(peer, n).cloned();
                prop_assert_eq!(told, world.rib.exported(peer, &prefix(n)), "{} of {}", n, who);
            }
        }
        for n in 0..12 {
            let there = model.keys().filter(|(_, m)| *m == n).count();
            prop_assert_eq!(world.rib.paths(&prefix(n)).len(), there);
            prop_assert_eq!(world.rib.best(&prefix(n)).is_some(), there > 0);
        }
        let prefixes = model.keys().map(|(_, n)| n).collect::<std::collections::BTreeSet<_>>().len();
        prop_assert_eq!(world.rib.summary().prefixes[0], prefixes);
    }
}
