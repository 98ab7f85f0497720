//! A million routes of IPv4 over one session, from bytes to routes that are chosen: time on the processor and memory that
//! is resident. `cargo run --release -p bgp --example million [SETS]`. I/O: arguments, the clock, /proc.

mod measure;

use std::net::Ipv4Addr;

use bgp::attribute::{AsPath, Attributes, NextHop};
use bgp::decision::Options;
use bgp::family::Family;
use bgp::message::nlri::Nlri;
use bgp::message::{frame, pack, update};
use bgp::policy::Source;
use bgp::rib::{PeerConfig, Rib, Speaker};
use bgp::session::Config;
use bgp::session::config::{Opening, RemoteAs};
use bgp::session::negotiated::judge;
use meta::Prefix;

use crate::measure::{processor, resident};

const ROUTES: u32 = 1_000_000;

fn main() {
    let sets: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let (here, there) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let config = Config::new(64512, RemoteAs::Number(64513), here);
    let his = Config::new(64513, RemoteAs::Number(64512), there).open(Opening::First);
    let negotiated = judge(&config, &his).expect("an agreement");
    let wire = wire(&negotiated.receive, sets, there);
    println!("{ROUTES} routes of {sets} sets in {} bytes; before: {} KiB", wire.len(), resident());

    let options = Options::default();
    let mut rib = Rib::new(Speaker { number: 64512, identifier: here, cluster_id: here, options });
    let peer = rib.add_peer(PeerConfig::new(Source::External, there.into(), 64512)).expect("room");
    rib.up(peer, &negotiated);
    let mut config = PeerConfig::new(Source::External, Ipv4Addr::new(10, 0, 0, 3).into(), 64512);
    config.own_addresses[0] = Some(here.into());
    let reader = rib.add_peer(config).expect("room");
    let before = resident();
    let began = processor();
    let mut rest = &wire[..];
    let mut at = 0;
    while let Some((message, taken)) = frame(rest, true).expect("sound") {
        let update = update::read(message.body, &negotiated.receive).expect("sound");
        rib.update(peer, &update, 1);
        rest = &rest[taken..];
        at += 1;
        if at % 64 == 0 {
            rib.publish();
        }
    }
    rib.publish();
    let took = processor() - began;
    println!("in: {took:?}, {} KiB more; {:?}", resident() - before, rib.summary());

    rib.up(reader, &negotiated);
    let began = processor();
    let (mut bytes, mut calls) = (0, 0);
    loop {
        let out = rib.flush(reader, 256 << 10);
        if out.is_empty() {
            break;
        }
        (bytes, calls) = (bytes + out.len(), calls + 1);
    }
    println!("out to one: {:?}, {bytes} bytes in {calls} calls, {} KiB more", processor() - began, resident() - before);

    let began = processor();
    rib.remove_peer(peer);
    rib.publish();
    while !rib.flush(reader, 256 << 10).is_empty() {}
    println!("all gone: {:?}; {:?}", processor() - began, rib.summary());
}

/// The session's bytes: a neighbour's table, packed.
fn wire(coding: &bgp::message::Coding, sets: u32, next_hop: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let each = ROUTES.div_ceil(sets);
    for set in 0..sets {
        let path = AsPath::sequence(&[64513, 100 + set, 200 + set % 7]);
        let attributes = Attributes { as_path: path, ..Attributes::local(NextHop::V4(next_hop)) };
        let numbers = set * each..((set + 1) * each).min(ROUTES);
        let route = |n: u32| Nlri::from(Prefix::new(Ipv4Addr::from((n + 0x10000) << 8), 24));
        let routes: Vec<Nlri> = numbers.map(route).collect();
        pack::announce(coding, Family::Ipv4Unicast, &attributes, &routes, &mut bytes).expect("short");
    }
    bytes
}
