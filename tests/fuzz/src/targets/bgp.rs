//! What a BGP speaker reads: messages of neighbours, whole conversations with them, packets of BFD, questions of people, and
//! its configuration.

use std::net::Ipv4Addr;
use std::time::Duration;

use bgp::attribute::{AsPath, Attributes, Community, NextHop};
use bgp::bfd::{self, Bfd, Packet};
use bgp::decision::Options;
use bgp::family::{Families, Family};
use bgp::message::nlri::Nlri;
use bgp::message::notification::Notification;
use bgp::message::open::Open;
use bgp::message::refresh::RouteRefresh;
use bgp::message::{Coding, HEADER, Kind, MAX_EXTENDED, Message, frame, pack, update};
use bgp::policy::{Filter, PeerType, Route, Source};
use bgp::rib::{PeerConfig, Rib, Speaker};
use bgp::router;
use bgp::session::config::{Opening, RemoteAs};
use bgp::session::{Action, Config, Input, Neighbour, Way};
use bgpd::control::Command;
use meta::Prefix;

use crate::input::{text, texts};
use crate::table::{DEEP, FLAT, JSON, Target, YAML};

pub const TARGETS: &[Target] = &[
    Target {
        name: "bgp-message",
        what: "messages of BGP: headers, OPEN, NOTIFICATION, ROUTE-REFRESH",
        run: messages,
        seeds: greetings,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "bgp-update",
        what: "UPDATEs of BGP, by what the session agreed on",
        run: updates,
        seeds: tables,
        // A prefix of one byte is three dozen once it stands in a list.
        memory: 400,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "bgp-session",
        what: "a whole conversation with a BGP neighbour, into the tables of routes",
        run: conversation,
        seeds: conversations,
        memory: 600,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "bgp-router",
        what: "Router Advertisements and Solicitations on links of unnumbered BGP neighbours",
        run: routers,
        seeds: advertisements,
        memory: 1,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "bgp-bfd",
        what: "packets of BFD, and what a session that hears them answers",
        run: watched,
        seeds: hellos,
        // A packet of 24 bytes may be answered at once.
        memory: 32,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "bgp-question",
        what: "questions on the BGP daemon's control socket",
        run: questions,
        seeds: asked,
        memory: 64,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "bgp-filter",
        what: "filters of the BGP speaker's configuration",
        run: filters,
        seeds: policies,
        memory: 3000,
        nests: YAML,
        depth: DEEP,
    },
    Target {
        name: "bgp-config",
        what: "the BGP daemon's configuration",
        run: configurations,
        seeds: documents,
        memory: 6000,
        nests: YAML,
        depth: DEEP,
    },
];

const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Whatever is read is written, and then read as it was.
fn messages(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((message, taken))) = frame(rest, true) {
        assert!((HEADER..=MAX_EXTENDED).contains(&taken) && taken <= rest.len(), "a message of {taken} bytes");
        rest = &rest[taken..];
        match message.kind {
            Kind::Open => again(Open::read(message.body).ok(), Message::Open, |body| Open::read(body).ok()),
            Kind::Notification => {
                if let Some(notification) = Notification::read(message.body) {
                    let shown = notification.to_string();
                    assert!(!shown.chars().any(char::is_control), "{shown:?}");
                    let _ = notification.inner().hard();
                }
            }
            Kind::RouteRefresh => {
                let read = |body: &[u8]| RouteRefresh::read(body).ok().flatten();
                again(read(message.body), Message::RouteRefresh, read);
            }
            Kind::Update | Kind::Keepalive => {}
        }
    }
}

fn again<T: Clone + PartialEq + std::fmt::Debug>(
    read: Option<T>,
    message: impl Fn(T) -> Message,
    reader: impl Fn(&[u8]) -> Option<T>,
) {
    let Some(value) = read else { return };
    let written = message(value.clone()).write();
    // An OPEN of other people may be longer than ours ever is: then it is not written.
    let Ok(Some((back, _))) = frame(&written, true) else { return };
    assert_eq!(reader(back.body), Some(value));
}

fn coding(byte: u8) -> Coding {
    let bit = |at: u8| byte >> at & 1 == 1;
    let families = |on| if on { Families::ALL } else { Families::NONE };
    Coding {
        internal: bit(0),
        four_octet_as: bit(1),
        extended_messages: true,
        families: if bit(2) { Families::ALL } else { Families::IPV4 },
        add_path: families(bit(3)),
        extended_next_hop: families(bit(4)),
    }
}

/// What is taken of an UPDATE can be told to others, and means the same there.
fn updates(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let body = &body[..body.len().min(MAX_EXTENDED - HEADER)];
    let coding = coding(*first);
    let Ok(update) = update::read(body, &coding) else { return };
    let count: usize = update.withdrawn().map(|list| list.iter().count()).sum();
    assert!(count <= body.len());
    for (next_hop, list) in update.announced() {
        let routes: Vec<Nlri> = list.iter().collect();
        let set = Attributes { next_hop, ..update.attributes.clone() };
        let mut out = Vec::new();
        if pack::announce(&coding, list.family(), &set, &routes, &mut out).is_err() {
            continue;
        }
        let mut told = Vec::new();
        let mut rest = &out[..];
        while let Some((message, taken)) = frame(rest, true).expect("our own header") {
            rest = &rest[taken..];
            let again = update::read(message.body, &coding).expect("our own message");
            for (next_hop, list) in again.announced() {
                // A path that two octets cut is not longer for it; all else is the same.
                assert_eq!((next_hop, again.attributes.as_path.length()), (set.next_hop, set.as_path.length()));
                told.extend(list.iter());
            }
        }
        assert_eq!(told, routes);
    }
}

/// The neighbour says these bytes after the greeting; half of it must not lead to anything but an end.
fn conversation(bytes: &[u8]) {
    let mut config = Config::new(64512, RemoteAs::Number(64513), HERE);
    config.families = Families::ALL;
    let mut his = Config::new(64513, RemoteAs::Number(64512), THERE);
    his.families = Families::ALL;
    let mut neighbour = Neighbour::new(config, false);
    let mut rib = Rib::new(Speaker { number: 64512, identifier: HERE, cluster_id: HERE, options: Options::default() });
    let id = rib.add_peer(PeerConfig::new(Source::External, THERE.into(), 64512)).expect("room");
    let mut now = Duration::ZERO;
    let mut stream: Vec<u8> = Message::Open(his.open(Opening::First)).write();
    stream.extend(Message::Keepalive.write());
    stream.extend_from_slice(bytes);
    let _ = (neighbour.step(Input::Start, now), neighbour.step(Input::Connected(Way::Outgoing), now));
    let mut rest = &stream[..];
    loop {
        now += Duration::from_secs(1);
        let (message, taken) = match frame(rest, neighbour.extended(Way::Outgoing)) {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(notification) => {
                neighbour.broken(Way::Outgoing, notification, now);
                break;
            }
        };
        rest = &rest[taken..];
        let (actions, update) = neighbour.received(Way::Outgoing, message, now);
        if let Some(update) = update {
            rib.update(id, &update, 1);
        }
        for action in &actions {
            match action {
                Action::Up(_, negotiated) => rib.up(id, negotiated),
                Action::Down { kept, .. } => rib.down(id, *kept),
                Action::Stale(fate) => rib.fate(id, *fate),
                Action::RefreshBegins(family) => rib.refresh_begins(id, *family),
                Action::Resend(family) => rib.refresh(id, *family),
                _ => {}
            }
        }
        rib.publish();
        let _ = rib.flush(id, 4096);
        if actions.contains(&Action::Close(Way::Outgoing)) {
            break;
        }
    }
    rib.remove_peer(id);
    rib.publish();
    assert_eq!(rib.summary().prefixes, [0, 0], "what he told goes with him");
}

/// Of a message that is valid its options are, to the last byte.
fn routers(bytes: &[u8]) {
    let from = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let heard = router::read(bytes, from, Some(255));
    assert!(heard.is_none() || bytes.len().is_multiple_of(8));
    assert_eq!(router::read(bytes, from, Some(254)), None);
}

fn advertisements() -> Vec<Vec<u8>> {
    let options = [1, 1, 2, 0, 0, 0, 0, 2, 5, 1, 0, 0, 0, 0, 5, 220];
    let all = [&router::advertisement(router::LIFETIME)[..], &router::solicitation()[..]];
    all.iter().map(|message| [message, &options[..]].concat()).collect()
}

/// What is read is written as it was; a session hears one packet after the other, and its next timer is never in the past.
fn watched(bytes: &[u8]) {
    let mut now = Duration::from_secs(1);
    let mut session = Bfd::new(bfd::Config::default(), 7, now);
    for datagram in bytes.chunks(24) {
        let Some(packet) = Packet::read(datagram) else { continue };
        let written = packet.write();
        assert_eq!(Packet::read(&written), Some(packet));
        now += Duration::from_millis(u64::from(datagram[0]));
        session.received(&packet, now);
        session.time(now);
        assert!(session.due().is_none_or(|due| due >= now), "a timer that was over is on");
    }
}

fn hellos() -> Vec<Vec<u8>> {
    let down = Packet {
        diagnostic: 0,
        state: bfd::State::Down,
        poll: false,
        is_final: false,
        demand: false,
        detect_multiplier: 3,
        my_discriminator: 9,
        your_discriminator: 0,
        desired_min_tx: 300_000,
        required_min_rx: 300_000,
    };
    let init = Packet { state: bfd::State::Init, your_discriminator: 7, ..down };
    let polls = Packet { state: bfd::State::Up, poll: true, required_min_rx: 0, ..init };
    vec![[down, init, polls, down].iter().flat_map(Packet::write).collect()]
}

/// A question that is understood is asked again in the same words.
fn questions(bytes: &[u8]) {
    let Ok(question) = serde_json::from_slice::<Command>(bytes) else { return };
    let written = serde_json::to_vec(&question).expect("a question");
    assert_eq!(serde_json::from_slice::<Command>(&written).ok(), Some(question));
}

fn asked() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"command":"summary"}"#,
        r#"{"command":"neighbors","neighbor":"fe80::2%eth1"}"#,
        r#"{"command":"routes","family":"ipv4","within":"10.0.0.0/8","from":"10.0.0.2","to":"eth1"}"#,
        r#"{"command":"route","prefix":"fd00::/8"}"#,
        r#"{"command":"reload"}"#,
    ])
}

fn filters(bytes: &[u8]) {
    let options = serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: meta::depth::MAX_DEPTH } };
    let Ok(filter) = serde_saphyr::from_str_with_options::<Filter>(&text(bytes), options) else { return };
    let route = Route {
        prefix: Prefix::new(HERE, 24),
        source: Source::External,
        peer: Some(THERE.into()),
        peer_type: Some(PeerType::External),
        interface: Some("eth0"),
        own_address: Some(HERE.into()),
    };
    let mut set = sample();
    filter.judge(&route, 64512, &mut set);
    assert!(set.communities.is_sorted() && set.large_communities.is_sorted());
}

/// Two readings are the same, and one that is refused says where.
fn configurations(bytes: &[u8]) {
    let text = text(bytes);
    let read = || bgpd::config::parse(&text, bgpd::config::Kind::Speaker, &|_| Ok("secret".to_owned()));
    match read() {
        Ok(config) => {
            assert_eq!(read().as_ref(), Ok(&config));
            assert!(config.neighbors.iter().all(|neighbor| !neighbor.peering.session.families.is_empty()));
        }
        Err(problem) => assert!(!problem.is_empty()),
    }
}

fn documents() -> Vec<Vec<u8>> {
    let all = [
        "{router-id: 10.0.0.1, as: 64512, neighbors: [{address: 10.0.0.2, remote-as: internal, hold-time: 9s}]}",
        "{router-id: 1.1.1.1, as: 1, groups: [{name: g, remote-as: external, bfd: {interval: 1s}}], \
         dynamic: [{prefix: 10.0.0.0/8, group: g}], filters: [{name: f, rules: [{action: accept}]}], \
         kernel: {export: f, learn: {protocols: [static, 7]}}, networks: [{prefix: 'fd00::/8', kernel: blackhole}]}",
        "{router-id: 1.1.1.1, as: 1, vrf: red, neighbors: [{interface: eth1, remote-as: external, tcp-ao: [{send-id: 1, \
         receive-id: 2, algorithm: hmac-sha-1-96, key: a}, {send-id: 3, receive-id: 4, algorithm: aes-128-cmac-96, \
         key-file: b}]}, {address: 'fe80::1', interface: eth2, remote-as: 2, password-file: c}]}",
    ];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn sample() -> Attributes {
    let mut set = Attributes::local(NextHop::V4(THERE));
    set.as_path = AsPath::sequence(&[64513, 70_000]);
    set.med = Some(5);
    set.add_community(Community::NO_EXPORT);
    set
}

fn greetings() -> Vec<Vec<u8>> {
    let mut config = Config::new(70_000, RemoteAs::External, HERE);
    config.families = Families::ALL;
    (config.receive_paths, config.send_paths) = (Families::ALL, Families::IPV4);
    let refresh = RouteRefresh { family: Family::Ipv4Unicast.wire(), subtype: bgp::message::refresh::Subtype::Begin };
    [
        Message::Open(config.open(Opening::Restarted)),
        Message::Keepalive,
        Message::Notification(Notification::shutdown(2, "new disks").hard()),
        Message::RouteRefresh(refresh),
    ]
    .iter()
    .map(Message::write)
    .collect()
}

/// UPDATEs of either family; the first byte is what was agreed on.
fn tables() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for byte in [0b00000, 0b00111, 0b11111] {
        for message in tells(&coding(byte)) {
            seeds.push([&[byte], &message[HEADER..]].concat());
        }
    }
    seeds
}

fn tells(coding: &Coding) -> Vec<Vec<u8>> {
    let routes = [Nlri::from(Prefix::new(HERE, 32)), Nlri::from(Prefix::new(Ipv4Addr::new(10, 0, 0, 0), 8))];
    let v6 = Prefix::new(std::net::Ipv6Addr::LOCALHOST, 128);
    let mut all = vec![Vec::new(); 4];
    let _ = pack::announce(coding, Family::Ipv4Unicast, &sample(), &routes, &mut all[0]);
    let of_v6 = Attributes { next_hop: NextHop::new(std::net::Ipv6Addr::LOCALHOST.into()), ..sample() };
    let _ = pack::announce(coding, Family::Ipv6Unicast, &of_v6, &[v6.into()], &mut all[1]);
    pack::withdraw(coding, Family::Ipv6Unicast, &[v6.into()], &mut all[2]);
    pack::end_of_rib(Family::Ipv4Unicast, &mut all[3]);
    all
}

fn conversations() -> Vec<Vec<u8>> {
    let coding = Coding { internal: false, four_octet_as: true, families: Families::ALL, ..Coding::default() };
    let mut seeds = vec![tells(&coding).concat()];
    seeds.extend(greetings());
    seeds
}

fn policies() -> Vec<Vec<u8>> {
    texts(&[
        "name: x\nrules:\n  - match: {prefixes: [{prefix: 10.0.0.0/8, lengths: {min: 24, max: 32}}], source: [static]}\n    set: {local-preference: 200, communities: {add: ['64512:1'], remove: [no-export], clear: true}}\n    action: accept\n",
        "name: y\nrules: [{match: {as-path: {starts-with: [1], contains: 2, length: {max: 3}}, peers: [10.0.0.2]}, set: {prepend: {as: 1, times: 3}, next-hop: self}}]\ndefault: accept\n",
    ])
}
